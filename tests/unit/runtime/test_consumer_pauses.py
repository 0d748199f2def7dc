"""Pauses of consumers that an operator requests, in virtual time on the broker in memory."""

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import pytest
from typing_extensions import override

from bus import Bus, Context, Dependency, Event, Job, Message, Request, Router, contract
from bus.errors import Unavailable
from bus.messaging.control import GetStats, Target
from bus.messaging.jobs.pauses import Pause
from bus.messaging.orders import OrderResult, PauseConsumers, ResumeConsumers
from bus.messaging.service_info import HandlerState
from bus.runtime.consumer_pauses import READ_SECONDS
from bus.storage.memory.store import MemoryStore
from bus.testing import MemoryBuses, MemoryTransport
from bus.testing.explicit_settings import ExplicitSettings
from tests.unit.runtime.in_memory import in_memory

EVENTS = "bakery.events.mill.ground.v1"
JOBS = "bakery.jobs.bake.v1"


class Price(Message):
    cents: int


@contract("mill.ground", version=1)
class Ground(Event):
    number: int


@contract("bakery.bake", version=1)
class Bake(Job[None]):
    number: int


@contract("bakery.price", version=1)
class GetPrice(Request[Price]):
    bread: str = "rye"


class Oven:
    """The handlers of a bakery. A handler waits while the oven is closed."""

    def __init__(self) -> None:
        self.open = asyncio.Event()
        self.open.set()
        self.begun: list[int] = []
        self.done: list[int] = []
        self.attempts: list[int] = []

    def router(self, dependency: Dependency | None = None) -> Router:
        router = Router("bakery")

        @router.event(Ground, concurrency=2, dependency=dependency)
        async def ground(event: Ground, context: Context) -> None:
            await self.work(event.number, context)

        @router.job(Bake, concurrency=2)
        async def bake(job: Bake, context: Context) -> None:
            await self.work(job.number, context)

        @router.request(GetPrice)
        async def price(_: GetPrice) -> Price:
            return Price(cents=300)

        return router

    async def work(self, number: int, context: Context) -> None:
        self.begun.append(number)
        self.attempts.append(context.envelope.attempt)
        await self.open.wait()
        self.done.append(number)


@asynccontextmanager
async def bakery(buses: MemoryBuses, oven: Oven, store: Any = None) -> AsyncIterator[Bus]:
    """Serve an instance of the bakery. With a `store`, it is the store of the service."""
    settings = ExplicitSettings(auth="off")
    transport = MemoryTransport(buses.broker, clock=buses.clock)
    bus = Bus("bakery", settings=settings, transport=transport, store=store, clock=buses.clock)
    async with bus, bus.serving(oven.router()):
        yield bus


async def order(
    console: Bus, kind: type[Any], *, expected: int = 1, seconds: float = 3600, **fields: Any
) -> list[OrderResult]:
    until = int((console._clock() + seconds) * 1000)
    asked = kind(until=until, **{"reason": "the flour is bad", "operator": "ida", **fields})
    answers = await console.discovery.ask(asked, Target("bakery"), window=5, expected=expected)
    assert len(answers) == expected
    return [each.record for each in answers]


async def pause(console: Bus, **fields: Any) -> list[OrderResult]:
    return await order(console, PauseConsumers, **fields)


async def resume(console: Bus, **fields: Any) -> list[OrderResult]:
    return await order(console, ResumeConsumers, seconds=60, **fields)


def handlers(bus: Bus) -> dict[str, HandlerState]:
    return {handler.queue: handler for handler in bus.report.stats().handlers}


@contextmanager
def order_log() -> Iterator[list[str]]:
    """Yield the texts of the log `bus.orders`, which grow inside the block."""
    texts: list[str] = []
    handler, log = logging.Handler(), logging.getLogger("bus.orders")
    handler.emit = lambda record: texts.append(record.getMessage())  # type: ignore[method-assign]
    level = log.level
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    try:
        yield texts
    finally:
        log.removeHandler(handler)
        log.setLevel(level)


async def soon(condition: Any, what: str) -> None:
    loop = asyncio.get_running_loop()
    ends = loop.time() + 200
    while not condition():
        assert loop.time() < ends, what
        await asyncio.sleep(0.05)


# --- Without a store ---


@in_memory
async def test_a_paused_consumer_starts_no_message_and_a_resumed_one_starts_all(
    buses: MemoryBuses,
) -> None:
    oven, mill = Oven(), await buses.bus("mill")
    async with bakery(buses, oven) as bus:
        (paused,) = await pause(mill)
        assert (paused.outcome, paused.changed, paused.stored) == ("applied", 2, None)
        for number in range(5):
            await mill.publish(Ground(number=number))
        await mill.submit(Bake(number=5))
        await asyncio.sleep(5)
        assert (oven.begun, buses.broker.depth(EVENTS), buses.broker.depth(JOBS)) == ([], 5, 1)
        (resumed,) = await resume(mill)
        assert (resumed.outcome, resumed.changed) == ("applied", 2)
        await soon(lambda: len(oven.done) == 6, "all messages are handled")
        assert set(oven.attempts) == {1}
        assert bus.ready


@in_memory
async def test_the_message_that_runs_at_a_pause_finishes_and_is_not_handled_again(
    buses: MemoryBuses,
) -> None:
    oven, mill = Oven(), await buses.bus("mill")
    oven.open.clear()
    async with bakery(buses, oven):
        await mill.publish(Ground(number=1))
        await soon(lambda: oven.begun, "the handler runs")
        await pause(mill)
        await mill.publish(Ground(number=2))
        oven.open.set()
        await soon(lambda: oven.done == [1], "the running message ends")
        await asyncio.sleep(1)
        assert oven.begun == [1]
        await resume(mill)
        await soon(lambda: oven.done == [1, 2], "the next message is handled")
        await asyncio.sleep(1)
        assert (oven.begun, buses.broker.depth(f"{EVENTS}.dead")) == ([1, 2], 0)


@in_memory
async def test_a_resume_does_not_wait_for_a_message_that_still_runs(buses: MemoryBuses) -> None:
    oven, mill = Oven(), await buses.bus("mill")
    oven.open.clear()
    async with bakery(buses, oven):
        await mill.publish(Ground(number=1))
        await soon(lambda: oven.begun == [1], "the handler runs")
        await pause(mill)
        await resume(mill)
        await mill.publish(Ground(number=2))
        await soon(lambda: oven.begun == [1, 2], "the second message begins beside the first")
        await pause(mill)
        oven.open.set()
        await soon(lambda: sorted(oven.done) == [1, 2], "both messages end")
        assert oven.begun == [1, 2]


@in_memory
async def test_a_pause_ends_by_itself(buses: MemoryBuses) -> None:
    oven, mill = Oven(), await buses.bus("mill")
    async with bakery(buses, oven):
        await pause(mill, seconds=30)
        await mill.publish(Ground(number=1))
        await asyncio.sleep(25)
        assert oven.begun == []
        await asyncio.sleep(6)
        assert oven.done == [1]


@in_memory
async def test_a_pause_names_one_type_or_one_queue(buses: MemoryBuses) -> None:
    oven, mill = Oven(), await buses.bus("mill")
    async with bakery(buses, oven) as bus:
        for target, other in ((JOBS, EVENTS), ("bakery.bake.v1", EVENTS), ("mill.ground.v1", JOBS)):
            (result,) = await pause(mill, target=target)
            assert (result.changed, handlers(bus)[other].pauses) == (1, ())
            await resume(mill)


@in_memory
async def test_requests_are_never_paused(buses: MemoryBuses) -> None:
    oven, mill = Oven(), await buses.bus("mill")
    async with bakery(buses, oven):
        (refused,) = await pause(mill, target="bakery.price.v1")
        assert (refused.outcome, refused.why) == ("ignored", "not-pausable")
        await pause(mill)
        assert (await mill.request(GetPrice(), timeout=2)).cents == 300


@in_memory
async def test_an_unknown_consumer_and_a_resume_without_a_pause_are_not_found(
    buses: MemoryBuses,
) -> None:
    async with bakery(buses, Oven()):
        mill = await buses.bus("mill")
        (unknown,) = await pause(mill, target="bakery.jobs.bke.v1")
        (not_paused,) = await resume(mill)
        assert (unknown.why, not_paused.why) == ("not-found", "not-found")


@in_memory
async def test_a_pause_without_an_end_needs_a_store(buses: MemoryBuses) -> None:
    async with bakery(buses, Oven()) as bus:
        (refused,) = await pause(await buses.bus("mill"), until_resumed=True)
        assert (refused.why, bus.report.pauses) == ("no-store", frozenset())


@in_memory
async def test_a_pause_is_reported_with_the_operator_the_reason_and_the_end(
    buses: MemoryBuses,
) -> None:
    mill = await buses.bus("mill")
    async with bakery(buses, Oven()) as bus:
        await pause(mill, target=JOBS, seconds=600)
        (answer,) = await mill.discovery.ask(GetStats(), Target("bakery"), expected=1)
        stats = answer.record
        (paused,) = [each for each in stats.handlers if each.operator_pause]
        info = paused.operator_pause
        assert info is not None
        assert info.until is not None
        assert (paused.queue, paused.pauses, paused.ready) == (JOBS, ("operator",), True)
        assert (info.by, info.reason, info.stored) == ("ida", "the flour is bad", False)
        assert info.until - info.at == pytest.approx(600_000, abs=5_000)
        gauges = {
            each.labels["operation"]: each.value
            for each in stats.series
            if each.name == "consumers.paused"
        }
        assert gauges == {"bakery.bake": 1, "mill.ground": 0, "bakery.price": 0}
        assert (bus.ready, bus.report.pauses) == (True, frozenset({"operator"}))


@in_memory
async def test_the_log_names_the_operator_and_the_reason_but_no_message(
    buses: MemoryBuses,
) -> None:
    mill = await buses.bus("mill")
    with order_log() as texts:
        async with bakery(buses, Oven()):
            await pause(mill, target=JOBS)
            await resume(mill, target=JOBS)
    assert any(
        f"the consumer of {JOBS} is paused until" in text
        and "by the operator ida: the flour is bad" in text
        for text in texts
    )
    assert f"bakery: the consumer of {JOBS} is not paused any more" in texts


# --- With a store ---


@in_memory
async def test_a_paused_job_queue_with_a_store_claims_nothing_and_records_everything(
    buses: MemoryBuses,
) -> None:
    store, oven, mill = MemoryStore(clock=buses.clock), Oven(), await buses.bus("mill")
    async with bakery(buses, oven, store) as bus:
        await pause(mill, target=JOBS)
        handles = [await mill.submit(Bake(number=number)) for number in range(3)]
        await asyncio.sleep(30)
        rows = await store.jobs.list()
        assert ([row.state for row in rows], oven.begun) == (["queued"] * 3, [])
        assert (buses.broker.depth(JOBS), bus.ready) == (0, True)
        await resume(mill, target=JOBS)
        for handle in handles:
            await handle.result(timeout=60)
        assert {row.attempt for row in await store.jobs.list()} == {1}


@in_memory
async def test_a_running_job_of_a_store_finishes_during_a_pause_with_its_result(
    buses: MemoryBuses,
) -> None:
    store, oven, mill = MemoryStore(clock=buses.clock), Oven(), await buses.bus("mill")
    oven.open.clear()
    async with bakery(buses, oven, store):
        handle = await mill.submit(Bake(number=1))
        await soon(lambda: oven.begun, "the job runs")
        await pause(mill, target=JOBS)
        await asyncio.sleep(120)  # its lease is renewed during the pause
        oven.open.set()
        await handle.result(timeout=60)
        (row,) = await store.jobs.list()
        assert (row.state, row.losses, oven.begun) == ("succeeded", 0, [1])


@in_memory
async def test_an_instance_that_starts_later_begins_paused(buses: MemoryBuses) -> None:
    store, oven, mill = MemoryStore(clock=buses.clock), Oven(), await buses.bus("mill")
    async with bakery(buses, Oven(), store) as first:
        (paused,) = await pause(mill, target=EVENTS, until_resumed=True)
        assert (paused.outcome, paused.stored) == ("applied", True)
        info = handlers(first)[EVENTS].operator_pause
        assert info is not None
        assert (info.until, info.stored) == (None, True)
    await mill.publish(Ground(number=1))
    async with bakery(buses, oven, store) as second:
        assert second.ready
        await asyncio.sleep(2 * 3600)  # longer than the order: the pause has no end
        assert (handlers(second)[EVENTS].pauses, oven.begun) == (("operator",), [])
        (resumed,) = await resume(mill)
        assert (resumed.outcome, resumed.stored) == ("applied", True)
        await soon(lambda: oven.done == [1], "the message is handled")
    assert await store.pauses() == []


@in_memory
async def test_the_end_of_a_stored_pause_is_confirmed_by_each_instance(buses: MemoryBuses) -> None:
    store, mill = MemoryStore(clock=buses.clock), await buses.bus("mill")
    async with bakery(buses, Oven(), store), bakery(buses, Oven(), store):
        await pause(mill, target=EVENTS, until_resumed=True, expected=2)
        ends = await resume(mill, expected=2)
        # Only one of them can remove the row.
        assert [(each.outcome, each.stored) for each in ends] == [("applied", True)] * 2
        (again, _) = await resume(mill, expected=2)
        assert again.why == "not-found"


@in_memory
async def test_an_instance_that_missed_an_order_follows_the_store_within_a_minute(
    buses: MemoryBuses,
) -> None:
    store, oven = MemoryStore(clock=buses.clock), Oven()
    missed = Pause(queue=EVENTS, by="ida", reason="mice", at=buses.clock(), until=None)
    async with bakery(buses, oven, store) as bus:
        await store.pause(missed)
        await asyncio.sleep(READ_SECONDS + 1)
        assert handlers(bus)[EVENTS].pauses == ("operator",)
        await store.resume(EVENTS)
        await asyncio.sleep(READ_SECONDS + 1)
        assert handlers(bus)[EVENTS].pauses == ()


class AwayStore(MemoryStore):
    """A store that can be away."""

    is_away = False

    @override
    async def pauses(self) -> Any:
        self.check()
        return await super().pauses()

    @override
    async def pause(self, pause: Pause) -> None:
        self.check()
        await super().pause(pause)

    @override
    async def resume(self, queue: str) -> bool:
        self.check()
        return await super().resume(queue)

    def check(self) -> None:
        if self.is_away:
            raise Unavailable("the store is away")


@in_memory
async def test_a_pause_that_the_store_does_not_accept_holds_here_and_the_answer_says_so(
    buses: MemoryBuses,
) -> None:
    store, mill = AwayStore(clock=buses.clock), await buses.bus("mill")
    async with bakery(buses, Oven(), store) as bus:
        store.is_away = True
        with order_log() as texts:
            (paused,) = await pause(mill, target=EVENTS)
        assert (paused.outcome, paused.stored) == ("applied", False)
        assert any("was not stored: the store is away" in text for text in texts)
        await asyncio.sleep(3 * READ_SECONDS)
        assert handlers(bus)[EVENTS].pauses == ("operator",)
        store.is_away = False
        await asyncio.sleep(READ_SECONDS + 1)  # the store does not know the pause: it stays
        assert handlers(bus)[EVENTS].pauses == ("operator",)
        await asyncio.sleep(3600)
        assert handlers(bus)[EVENTS].pauses == ()


class SlowStore(AwayStore):
    """A store that takes 3 s for each pause."""

    @override
    async def pause(self, pause: Pause) -> None:
        await asyncio.sleep(3)
        await super().pause(pause)


@in_memory
async def test_a_resume_right_after_a_pause_wins_also_if_the_store_is_slow(
    buses: MemoryBuses,
) -> None:
    store, mill = SlowStore(clock=buses.clock), await buses.bus("mill")
    async with bakery(buses, Oven(), store) as bus:
        (paused,) = await pause(mill, target=EVENTS)
        assert paused.stored is False
        assert handlers(bus)[EVENTS].pauses == ("operator",)
        await resume(mill, target=EVENTS)
        await asyncio.sleep(2 * READ_SECONDS)
        assert (await store.pauses(), handlers(bus)[EVENTS].pauses) == ([], ())
