"""Tests of hedged requests on the broker in memory."""

import asyncio
from typing import Any

import pytest

from bus import (
    Bus,
    BusError,
    Context,
    Message,
    Request,
    Router,
    ServiceConfig,
    Unavailable,
    contract,
)
from bus.testing import MemoryBuses
from tests.polling import until
from tests.unit.runtime.in_memory import in_memory

AFTER = 0.1


class Stand(Message):
    worker: str


@contract("wharf.look", version=1, idempotent=True)
class Look(Request[Stand]):
    pass


@contract("wharf.take", version=1)
class Take(Request[Stand]):
    pass


class Worker:
    """One process of the service, which handles a request in some seconds."""

    def __init__(self, name: str, *, seconds: float = 0.0, error: BusError | None = None) -> None:
        self.name, self.seconds, self.error = name, seconds, error
        self.seen: list[str] = []
        self.router = Router("wharf")
        self.router.request(Look, concurrency=1)(self.look)
        self.router.request(Take, concurrency=1)(self.take)

    async def look(self, _: Look, context: Context) -> Stand:
        return await self._answer(context)

    async def take(self, _: Take, context: Context) -> Stand:
        return await self._answer(context)

    async def _answer(self, context: Context) -> Stand:
        self.seen.append(context.envelope.id)
        await asyncio.sleep(self.seconds)
        if self.error is not None:
            raise self.error
        return Stand(worker=self.name)


async def serve(buses: MemoryBuses, *workers: Worker) -> None:
    for worker in workers:
        await buses.serve(await buses.bus("wharf"), worker.router)


async def caller(buses: MemoryBuses, after: float = AFTER, **others: Any) -> Bus:
    config = ServiceConfig("wharf", hedge_after=after, **others)
    return await buses.bus("shop", services=[config])


def number_of(bus: Bus, name: str) -> float:
    return sum(each.value for each in bus.report.stats().series if each.name == name)


@in_memory
async def test_the_second_copy_is_answered_by_another_worker(buses: MemoryBuses) -> None:
    slow, fast = Worker("slow", seconds=5), Worker("fast")
    await serve(buses, slow, fast)
    bus, loop = await caller(buses), asyncio.get_running_loop()
    began = loop.time()
    assert (await bus.request(Look(), timeout=20)).worker == "fast"
    assert loop.time() - began == pytest.approx(AFTER, abs=0.05)
    assert slow.seen == fast.seen
    assert number_of(bus, "calls.hedged") == 1
    assert number_of(bus, "messages.sent") == 1


@in_memory
async def test_the_late_reply_of_the_other_copy_does_no_harm(buses: MemoryBuses) -> None:
    slow, fast = Worker("slow", seconds=5), Worker("fast")
    await serve(buses, slow, fast)
    bus = await caller(buses)
    await bus.request(Look(), timeout=20)
    replies = bus._client.replies
    await until(lambda: replies.late == 1, "the late reply")
    assert not replies._calls
    slow.seconds = 0
    assert (await bus.request(Look(), timeout=20)).worker in {"slow", "fast"}


@in_memory
async def test_a_request_that_is_not_idempotent_has_no_second_copy(buses: MemoryBuses) -> None:
    slow, fast = Worker("slow", seconds=5), Worker("fast")
    await serve(buses, slow, fast)
    bus = await caller(buses)
    assert (await bus.request(Take(), timeout=20)).worker == "slow"
    assert fast.seen == []
    assert number_of(bus, "calls.hedged") == 0


@in_memory
async def test_a_second_copy_at_the_same_worker_joins_the_first(buses: MemoryBuses) -> None:
    alone = Worker("alone", seconds=5)
    alone.router = Router("wharf")
    alone.router.request(Look, concurrency=8)(alone.look)
    await serve(buses, alone)
    bus, loop = await caller(buses), asyncio.get_running_loop()
    began = loop.time()
    assert (await bus.request(Look(), timeout=20)).worker == "alone"
    assert loop.time() - began < 6
    assert len(alone.seen) == 1
    assert number_of(bus, "calls.hedged") == 1


@in_memory
async def test_an_error_of_the_worker_that_has_joined_both_copies_ends_the_call(
    buses: MemoryBuses,
) -> None:
    alone = Worker("alone", seconds=1, error=Unavailable("out of paper"))
    alone.router = Router("wharf")
    alone.router.request(Look, concurrency=8)(alone.look)
    await serve(buses, alone)
    bus, loop = await caller(buses, retries=0), asyncio.get_running_loop()
    began = loop.time()
    with pytest.raises(Unavailable, match="out of paper"):
        await bus.request(Look(), timeout=20)
    assert loop.time() - began < 2
    assert len(alone.seen) == 1
    assert number_of(bus, "calls.hedged") == 1


@in_memory
async def test_an_error_of_the_busy_worker_leaves_the_other_copy_to_answer(
    buses: MemoryBuses,
) -> None:
    slow = Worker("slow", seconds=1, error=Unavailable("out of paper"))
    await serve(buses, slow, Worker("fast", seconds=3))
    bus = await caller(buses, retries=0)
    assert (await bus.request(Look(), timeout=20)).worker == "fast"


@in_memory
async def test_a_request_without_a_connection_is_sent_once_when_the_broker_returns(
    buses: MemoryBuses,
) -> None:
    worker = Worker("fast")
    await serve(buses, worker)
    bus = await caller(buses, 2.0)
    await bus.request(Look(), timeout=20)
    buses.broker.stop()
    asking = [asyncio.ensure_future(bus.request(Look(), timeout=60)) for _ in range(20)]
    await asyncio.sleep(5)
    buses.broker.start()
    await asyncio.gather(*asking)
    assert number_of(bus, "calls.hedged") == 0
    assert len(worker.seen) == 21


@in_memory
async def test_a_request_that_waits_for_the_service_is_not_hedged_before_the_service_serves_it(
    buses: MemoryBuses,
) -> None:
    bus = await caller(buses, 2.0)
    asking = asyncio.ensure_future(bus.request(Look(), timeout=60, wait_for_service=True))
    await asyncio.sleep(5)
    worker = Worker("fast")
    await serve(buses, worker)
    assert (await asking).worker == "fast"
    assert number_of(bus, "calls.hedged") == 0
    assert len(worker.seen) == 1


@in_memory
async def test_a_lost_connection_ends_both_copies_and_the_request_is_sent_again_once(
    buses: MemoryBuses,
) -> None:
    workers = Worker("one", seconds=3), Worker("two", seconds=3)
    await serve(buses, *workers)
    bus = await caller(buses)
    asking = asyncio.ensure_future(bus.request(Look(), timeout=60))
    await until(lambda: number_of(bus, "calls.hedged") == 1, "the second copy")
    buses.broker.drop_all()
    assert (await asking).worker in {"one", "two"}
    assert not bus._client.replies._calls


@in_memory
async def test_a_thousand_hedged_calls_leave_no_task_and_no_pending_call(
    buses: MemoryBuses,
) -> None:
    # Each other request goes to the slow worker, because the broker takes turns.
    slow, fast = Worker("slow", seconds=0.3), Worker("fast")
    for worker in (slow, fast):
        worker.router = Router("wharf")
        worker.router.request(Look, concurrency=50)(worker.look)
    await serve(buses, slow, fast)
    bus = await caller(buses, retry_budget="off")
    await bus.request(Look(), timeout=20)
    await until(lambda: len(asyncio.all_tasks()) < 100, "a quiet bus")
    before = len(asyncio.all_tasks())
    for _ in range(50):
        await asyncio.gather(*(bus.request(Look(), timeout=20) for _ in range(20)))
    assert number_of(bus, "calls.hedged") >= 200
    await buses.settled()
    assert not bus._client.replies._calls
    assert len(bus._client.replies._deadlines) == 0
    assert len(asyncio.all_tasks()) <= before
