"""The trees of spans that messages leave."""

from contextlib import suppress
from itertools import pairwise

from opentelemetry import trace

from bus import Context, NotFound, RetryPolicy, Router, Unavailable
from bus.messaging.topology.addresses import address_of
from bus.testing import MemoryBuses
from bus.transports.wire_format import AmqpMessage
from tests.unit.ledger import Add, BooksClosed, CloseBooks, Total
from tests.unit.spans.recorded import Recorded
from tests.unit.spans.services import ledger, serving

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


async def test_the_workers_span_is_a_child_of_the_callers_and_nested_calls_of_the_workers(
    buses: MemoryBuses, recorded: Recorded
) -> None:
    await serving(buses, ledger())
    office = await buses.bus("office")
    with trace.get_tracer("app").start_as_current_span("view"):
        await office.request(Add())
    assert recorded.tree() == (
        "INTERNAL view\n"
        "  CLIENT ledger.add.v1\n"
        "    SERVER ledger.add.v1\n"
        "      CLIENT ledger.total.v1\n"
        "        SERVER ledger.total.v1"
    )


async def test_an_error_is_recorded_by_its_code_and_never_by_its_text(
    buses: MemoryBuses, recorded: Recorded
) -> None:
    await serving(buses, ledger())
    office = await buses.bus("office")
    with suppress(NotFound):
        await office.request(Add(amount=-1))
    caller, worker = recorded.only("CLIENT"), recorded.only("SERVER")
    assert caller.attributes is not None
    assert worker.attributes is not None
    assert (caller.status.status_code.name, caller.status.description) == ("ERROR", None)
    assert caller.attributes["error.type"] == caller.attributes["rpc.status_code"] == "not_found"
    # The caller is at fault, so the span of the service is not an error.
    assert worker.status.status_code.name == "UNSET"
    assert worker.attributes["rpc.status_code"] == "not_found"
    assert "error.type" not in worker.attributes
    assert "Quist" not in "".join(each.to_json() for each in recorded.spans)
    assert not caller.events
    assert not worker.events


async def test_each_subscriber_of_an_event_has_a_trace_with_a_link_to_the_publish(
    buses: MemoryBuses, recorded: Recorded
) -> None:
    for name in ("archive", "reports"):
        router = Router(name)

        @router.event(BooksClosed)
        async def keep(event: BooksClosed) -> None: ...

        await serving(buses, router)
    await (await buses.bus("ledger")).publish(BooksClosed())
    await buses.settled()
    assert sorted(recorded.tree().splitlines()) == [
        "CONSUMER process archive.events.ledger.closed.v1 <- send PRODUCER",
        "CONSUMER process reports.events.ledger.closed.v1 <- send PRODUCER",
        "PRODUCER publish bus.events:ledger.closed.v1",
    ]
    traces = {each.context.trace_id for each in recorded.spans if each.context}
    assert len(traces) == 3


async def test_each_attempt_of_a_job_has_a_link_to_the_submit_and_to_the_attempt_before(
    buses: MemoryBuses, recorded: Recorded, skip_waits: None
) -> None:
    router = Router("ledger")

    @router.job(CloseBooks, retry=RetryPolicy(attempts=3))
    async def close(job: CloseBooks, context: Context) -> Total:
        if context.envelope.attempt < 3:
            raise Unavailable("not yet")
        return Total(total=context.envelope.attempt)

    await serving(buses, router)
    office = await buses.bus("office")
    handle = await office.submit(CloseBooks())
    assert (await handle.result()).total == 3
    queue = "process ledger.jobs.close.v1"
    assert recorded.tree() == (
        "PRODUCER publish bus.jobs:ledger.close.v1\n"
        f"CONSUMER {queue} (unavailable) <- send PRODUCER\n"
        f"CONSUMER {queue} (unavailable) <- send PRODUCER <- previous_attempt CONSUMER\n"
        f"CONSUMER {queue} <- send PRODUCER <- previous_attempt CONSUMER"
    )
    attempts = [each for each in recorded.spans if each.kind.name == "CONSUMER"]
    for before, after in pairwise(attempts):
        assert before.context is not None
        assert after.links[1].context.span_id == before.context.span_id
    numbers = [(each.attributes or {})["trunkline.message.attempt"] for each in attempts]
    assert numbers == [1, 2, 3]


async def test_a_replay_is_linked_to_the_submit_and_to_the_attempt_that_failed_last(
    buses: MemoryBuses, recorded: Recorded
) -> None:
    router, is_repaired = Router("ledger"), list[bool]()

    @router.job(CloseBooks, retry=RetryPolicy(attempts=1))
    async def close(job: CloseBooks) -> Total:
        if not is_repaired:
            raise NotFound("Eleonora Quist")
        return Total(total=1)

    bus = await serving(buses, router)
    await (await buses.bus("office")).submit(CloseBooks())
    await buses.settled()
    is_repaired.append(True)
    assert (await bus.replay("ledger.jobs.close.v1")).replayed == 1
    await buses.settled()
    queue = "process ledger.jobs.close.v1"
    assert recorded.tree() == (
        "PRODUCER publish bus.jobs:ledger.close.v1\n"
        f"CONSUMER {queue} (not_found) <- send PRODUCER\n"
        f"CONSUMER {queue} <- send PRODUCER <- previous_attempt CONSUMER"
    )
    failed, replayed = recorded.spans[1].attributes, recorded.spans[2].attributes
    assert failed is not None
    assert replayed is not None
    assert (replayed["trunkline.message.replays"], replayed["trunkline.message.attempt"]) == (1, 1)
    assert "trunkline.message.replays" not in failed
    assert str(failed["trunkline.error.where"]).endswith("close")
    assert "Quist" not in "".join(each.to_json() for each in recorded.spans)


async def test_a_request_that_runs_at_most_once_has_the_same_spans(
    buses: MemoryBuses, recorded: Recorded
) -> None:
    await serving(buses, ledger())
    await (await buses.bus("office")).request(Add(amount=2))
    assert recorded.tree().splitlines()[:2] == ["CLIENT ledger.add.v1", "  SERVER ledger.add.v1"]


async def test_the_trace_of_a_publisher_in_another_language_is_continued(
    buses: MemoryBuses, recorded: Recorded
) -> None:
    await serving(buses, ledger())
    headers = {"traceparent": f"00-{TRACE}-{SPAN}-01", "tracestate": "vendor=1"}
    wire = AmqpMessage(
        body=b'{"account":"a"}',
        message_id="m-1",
        type="ledger.total.v1",
        app_id="pika",
        headers=headers,
    )
    buses.broker.publish(wire, address_of("request", "ledger.total.v1"))
    await buses.settled()
    worker = recorded.only("SERVER")
    assert worker.parent is not None
    assert worker.context is not None
    assert (f"{worker.context.trace_id:032x}", f"{worker.parent.span_id:016x}") == (TRACE, SPAN)
    assert worker.context.trace_state.to_header() == "vendor=1"
    assert worker.parent.is_remote
