"""Spans of messages that travel through RabbitMQ."""

from pydantic import SecretStr

from bus import Bus, NotFound, RetryPolicy, Router, Settings
from tests.conformance.world import until
from tests.unit.ledger import BooksClosed, CloseBooks, Total
from tests.unit.spans.recorded import recording
from tests.unit.spans.services import ledger

QUEUE = "ledger.jobs.close.v1"


async def test_spans_of_requests_events_retries_and_replays_are_connected_through_rabbitmq(
    vhost_url: str,
) -> None:
    settings = Settings(url=SecretStr(vhost_url))
    books, archive, runs = ledger(), Router("archive"), list[int]()

    @books.job(CloseBooks, retry=RetryPolicy(attempts=2, first_delay=1, factor=1))
    async def close(job: CloseBooks) -> Total:
        runs.append(1)
        if len(runs) < 3:
            raise NotFound("Eleonora Quist") if len(runs) == 2 else ValueError("Eleonora Quist")
        return Total(total=1)

    @archive.event(BooksClosed)
    async def keep(event: BooksClosed) -> None: ...

    async with (
        Bus("ledger", settings=settings) as serving,
        Bus("archive", settings=settings) as subscribed,
        serving.serving(books),
        subscribed.serving(archive),
    ):
        with recording() as recorded:
            await serving.publish(BooksClosed())
            await subscribed.submit(CloseBooks())
            await until(lambda: serving.dead_letters(QUEUE), "the dead letter")
            await serving.replay(QUEUE)
            await until(lambda: len(recorded.spans) == 6, "the replayed job")
    queue = f"CONSUMER process {QUEUE}"
    lines = recorded.tree().splitlines()
    # The event is handled at the same time as the job, so the place of its line can differ.
    lines.remove("CONSUMER process archive.events.ledger.closed.v1 <- send PRODUCER")
    assert lines == [
        "PRODUCER publish bus.events:ledger.closed.v1",
        "PRODUCER publish bus.jobs:ledger.close.v1",
        f"{queue} (internal) <- send PRODUCER",
        f"{queue} (not_found) <- send PRODUCER <- previous_attempt CONSUMER",
        f"{queue} <- send PRODUCER <- previous_attempt CONSUMER",
    ]
    assert "Quist" not in "".join(each.to_json() for each in recorded.spans)
