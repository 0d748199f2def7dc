"""Durable jobs on RabbitMQ: what the broker sees of a job that runs."""

import asyncio
from collections.abc import AsyncIterator, Sequence

import pytest
from pydantic import SecretStr

from bus import Bus, Job, Message, Router, Settings, contract
from bus.contracts.contract import Catalog
from bus.messaging.jobs.records import NewJob, OtherJob
from bus.operations.brokers.broker import Broker
from bus.operations.brokers.private_node import PrivateNode
from bus.storage.memory.store import MemoryStore
from tests.broker import evaluate
from tests.conformance.world import until
from tests.integration.ledger import Place

catalog = Catalog()
SET, TICK = "application:set_env(rabbit", "channel_tick_interval"
QUEUE = "mill.jobs.grind.v1"


class Flour(Message):
    """Result of a job."""

    kilos: int


@contract("mill.grind", version=1, catalog=catalog)
class Grind(Job[Flour]):
    """A job of the service with a store."""

    kilos: int = 1


@pytest.fixture
def place(shared_broker: Broker, vhost_url: str) -> Place:
    """Return a virtual host of the shared broker."""
    return Place(shared_broker, vhost_url)


async def counts(place: Place, queue: str = QUEUE) -> tuple[int, int]:
    """Return the ready and the unacked messages of a queue."""
    rows = await place.api.call(
        "GET", f"queues/{place.vhost}?disable_stats=true&enable_queue_totals=true"
    )
    [row] = [each for each in rows if each["name"] == queue]
    return row["messages_ready"], row["messages_unacknowledged"]


class HeldStore(MemoryStore):
    """A store that records no job until the test says so."""

    def __init__(self) -> None:
        super().__init__()
        self.opened = asyncio.Event()
        record = self.jobs.record

        async def record_later(jobs: Sequence[NewJob]) -> Sequence[bool | OtherJob]:
            await self.opened.wait()
            return await record(jobs)

        self.jobs.record = record_later  # type: ignore[method-assign]


async def test_the_work_queue_has_no_unacked_message_while_a_handler_runs(place: Place) -> None:
    router, running, end = Router("mill"), asyncio.Event(), asyncio.Event()

    @router.job(Grind, concurrency=1)
    async def grind(job: Grind) -> Flour:
        running.set()
        await end.wait()
        return Flour(kilos=job.kilos)

    async def has(expected: tuple[int, int]) -> None:
        """Wait for the counts of the broker, which it updates every 5 s."""

        async def is_so() -> bool:
            return await counts(place) == expected

        await until(is_so, f"{expected} ready and unacked messages")

    store = HeldStore()
    async with (
        Bus("mill", settings=place.settings, store=store) as mill,
        Bus("farm", settings=place.settings) as farm,
        mill.serving(router),
    ):
        handles = [await farm.submit(Grind(kilos=each)) for each in range(50)]
        await has((0, 50))  # nothing is acked before it is recorded
        store.opened.set()
        await running.wait()
        await has((0, 0))
        states = {record.state for record in await store.jobs.list()}
        assert states == {"running", "queued"}
        end.set()
        results = [await handle.result(timeout=30) for handle in handles]
    assert [each.kilos for each in results] == list(range(50))


@pytest.fixture
async def impatient_url(private_node: PrivateNode) -> AsyncIterator[str]:
    """Return the URL of a broker that takes a delivery back after one second."""
    await evaluate(private_node, f"{SET}, consumer_timeout, 1000), {SET}, {TICK}, 1000).")
    yield private_node.url
    await evaluate(private_node, f"{SET}, consumer_timeout, 1800000), {SET}, {TICK}, 60000).")


async def test_a_job_three_times_as_long_as_the_brokers_consumer_timeout_runs_once(
    impatient_url: str,
) -> None:
    router, runs = Router("mill"), list[int]()

    @router.job(Grind, timeout=100)
    async def grind(job: Grind) -> Flour:
        runs.append(job.kilos)
        await asyncio.sleep(3)
        return Flour(kilos=job.kilos)

    settings = Settings(url=SecretStr(impatient_url), consumer_timeout=1)
    async with (
        Bus("mill", settings=settings, store=MemoryStore()) as mill,
        mill.serving(router),
    ):
        handle = await mill.submit(Grind(kilos=5))
        assert (await handle.result(timeout=30)).kilos == 5
    assert runs == [5]
