"""Events and jobs wait while a dependency is down, in virtual time on the broker in memory."""

import asyncio
import logging
from collections import Counter
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest

from bus import Context, Dependency, Router
from bus.contracts.retry_policy import RetryPolicy
from bus.errors import Unavailable, executed_of
from bus.runtime.bus import Bus
from bus.testing import MemoryBuses
from tests.unit.ledger import BooksClosed, CloseBooks, GetTotal, Total
from tests.unit.runtime.in_memory import in_memory

JOBS = "ledger.jobs.close.v1"
EVENTS = "office.events.ledger.closed.v1"
TIER = "office.retry.5s"


class EhrDown(Exception):
    """The dependency of these tests is down."""


class Ehr:
    """A dependency that a test stops and starts, and that knows each call."""

    def __init__(self, *, is_down: bool = False, seconds: float = 0.0) -> None:
        self.is_down = is_down
        self.calls: list[float] = []
        """The times of the calls while it was down."""
        self.done: list[Any] = []
        """The messages that were handled."""
        self.attempts: Counter[int] = Counter()
        self.seconds = seconds
        """The duration of each call."""

    async def call(self, message: Any, context: Context) -> None:
        self.attempts[context.envelope.attempt] += 1
        is_down = self.is_down
        if is_down:
            self.calls.append(asyncio.get_running_loop().time())
        await asyncio.sleep(self.seconds)
        if is_down:
            raise EhrDown
        self.done.append(message)


def job_router(ehr: Ehr, dependency: Dependency, **options: Any) -> Router:
    router = Router("ledger")

    @router.job(CloseBooks, dependency=dependency, **options)
    async def close(job: CloseBooks, context: Context) -> Total:
        await ehr.call(job.year, context)
        return Total(total=job.year)

    return router


def of_ehr(**values: Any) -> Dependency:
    return Dependency(name="ehr", failures=(EhrDown,), **values)


async def happens(condition: Callable[[], object], what: str, seconds: float = 100) -> None:
    """Let virtual time pass until `condition()` is true, for at most `seconds`."""
    loop = asyncio.get_running_loop()
    ends = loop.time() + seconds
    while not condition():
        assert loop.time() < ends, f"{seconds:g} s have passed without {what}"
        await asyncio.sleep(0.05)


async def submit(bus: Bus, count: int) -> list[Any]:
    return [await bus.submit(CloseBooks(year=year)) for year in range(count)]


def dead(buses: MemoryBuses, queue: str) -> int:
    return buses.broker.depth(f"{queue}.dead")


def pauses_of(bus: Bus) -> list[tuple[str, ...]]:
    return [handler.pauses for handler in bus.report.stats().handlers]


@in_memory
async def test_a_dependency_that_is_down_for_60_s_costs_10000_queued_messages_nothing(
    buses: MemoryBuses,
) -> None:
    ehr, router, loop = Ehr(seconds=0.01), Router("office"), asyncio.get_running_loop()

    @router.event(BooksClosed, dependency=of_ehr(probe_interval=10), concurrency=4)
    async def note(event: BooksClosed, context: Context) -> None:
        await ehr.call(event.year, context)

    office, ledger = await buses.bus("office"), await buses.bus("ledger")
    await buses.serve(office, router)
    await asyncio.gather(*(ledger.publish(BooksClosed(year=year)) for year in range(10_000)))
    await happens(lambda: len(ehr.done) > 100, "work")
    ehr.is_down, stopped, done = True, loop.time(), len(ehr.done)
    await happens(lambda: loop.time() - stopped >= 60, "the end of the outage")
    calls = [*ehr.calls]
    assert len(calls) <= 5 + 60 / 10
    assert all(later - earlier >= 10 for earlier, later in pairwise(calls[5:]))
    assert buses.broker.unacked(EVENTS) <= 5  # the prefetch, and the one of the first consumer
    ehr.is_down, returned = False, loop.time()
    await happens(lambda: len(ehr.done) > done, "a message that is handled")
    assert loop.time() - returned <= 10 + 0.1
    await happens(lambda: len(ehr.done) > done + 500, "work")
    await happens(lambda: buses.broker.depth(TIER) == 0, "the return of all messages")
    left = buses.broker.depth(EVENTS) + buses.broker.unacked(EVENTS)
    assert len(ehr.done) + left == 10_000
    assert len(set(ehr.done)) == len(ehr.done)
    assert (set(ehr.attempts), dead(buses, EVENTS)) == ({1}, 0)
    assert {wire.headers["attempt"] for wire in buses.broker.peek(EVENTS)} == {1}


@in_memory
async def test_a_job_that_waits_for_its_dependency_uses_no_attempt(buses: MemoryBuses) -> None:
    ehr = Ehr(is_down=True)
    router = job_router(ehr, of_ehr(probe_interval=5), retry=RetryPolicy(attempts=1))
    ledger, client = await buses.bus("ledger"), await buses.bus("client")
    await buses.serve(ledger, router)
    (job,) = await submit(client, 1)
    await happens(lambda: len(ehr.calls) == 20, "probes", 300)
    assert dead(buses, JOBS) == 0
    ehr.is_down = False
    assert await job.result(timeout=20) == Total(total=0)
    assert ehr.attempts == {1: 21}


@in_memory
async def test_a_message_that_fails_while_others_succeed_uses_its_attempts(
    buses: MemoryBuses,
) -> None:
    failed: list[int] = []
    router = Router("ledger")

    @router.job(CloseBooks, dependency=of_ehr(probe_interval=1), retry=RetryPolicy(attempts=2))
    async def close(job: CloseBooks, context: Context) -> Total:
        if job.year == 13:
            failed.append(context.envelope.attempt)
            raise EhrDown
        return Total(total=job.year)

    ledger, client = await buses.bus("ledger"), await buses.bus("client")
    await buses.serve(ledger, router)
    await client.submit(CloseBooks(year=13))
    while not dead(buses, JOBS):
        await (await client.submit(CloseBooks(year=1))).result(timeout=60)
        await asyncio.sleep(0.5)
    assert failed == [1, 1, 1, 1, 1, 1, 2]


@in_memory
async def test_a_probe_that_fails_for_another_reason_settles_as_always(buses: MemoryBuses) -> None:
    ehr, router = Ehr(is_down=True), Router("ledger")
    bad: list[int] = []

    @router.job(CloseBooks, dependency=of_ehr(probe_interval=5), retry=RetryPolicy(attempts=1))
    async def close(job: CloseBooks, context: Context) -> Total:
        if bad and job.year == bad[0]:
            raise ValueError
        await ehr.call(job.year, context)
        return Total(total=job.year)

    ledger, client = await buses.bus("ledger"), await buses.bus("client")
    await buses.serve(ledger, router)
    await submit(client, 8)
    await happens(lambda: len(ehr.calls) == 5, "an open breaker")
    bad.append(5)  # the oldest message that is held now, and so the next probe
    ehr.is_down = False
    await happens(lambda: len(ehr.done) == 7, "all other jobs")
    assert (5 in ehr.done, dead(buses, JOBS)) == (False, 1)


@in_memory
async def test_the_wait_for_a_dependency_does_not_count_toward_the_total_time(
    buses: MemoryBuses,
) -> None:
    ehr, router = Ehr(), Router("ledger")
    errors: list[Exception] = [ValueError(), *(EhrDown() for _ in range(9)), ValueError()]

    @router.job(
        CloseBooks,
        dependency=of_ehr(probe_interval=30),
        retry=RetryPolicy(delays=(5, 5), total_time=60),
    )
    async def close(job: CloseBooks, context: Context) -> Total:
        ehr.attempts[context.envelope.attempt] += 1
        if errors:
            raise errors.pop(0)
        return Total(total=1)

    ledger, client = await buses.bus("ledger"), await buses.bus("client")
    await buses.serve(ledger, router)
    job = await client.submit(CloseBooks())
    assert await job.result(timeout=900) == Total(total=1)
    assert ehr.attempts == {1: 1, 2: 10, 3: 1}


@in_memory
async def test_a_job_that_expires_while_it_waits_is_dead_lettered_and_never_handled(
    buses: MemoryBuses,
) -> None:
    ehr = Ehr(is_down=True)
    ledger, client = await buses.bus("ledger"), await buses.bus("client", message_ttl=20)
    await buses.serve(ledger, job_router(ehr, of_ehr(probe_interval=5)))
    await submit(client, 7)
    await happens(lambda: dead(buses, JOBS) == 7, "dead letters")
    letters = await ledger.dead_letters(JOBS)
    assert {letter.record.error for letter in letters} == {"Expired"}
    assert ehr.done == []


@in_memory
async def test_the_submitter_learns_once_that_its_job_waits(buses: MemoryBuses) -> None:
    ehr = Ehr(is_down=True)
    ledger, client = await buses.bus("ledger"), await buses.bus("client")
    await buses.serve(ledger, job_router(ehr, of_ehr(probe_interval=5)))
    (job,) = await submit(client, 1)
    notes: list[str] = []

    async def listen() -> None:
        notes.extend([progress.note async for progress in job.updates()])

    listening = asyncio.create_task(listen())
    await happens(lambda: len(ehr.calls) == 9, "probes")
    ehr.is_down = False
    await job.result(timeout=20)
    await listening
    assert notes == ["waits until ehr is available: EhrDown"]


@in_memory
async def test_handlers_of_one_process_share_the_breaker_of_their_dependency(
    buses: MemoryBuses,
) -> None:
    ehr, dependency = Ehr(is_down=True), of_ehr(probe_interval=10)
    router = job_router(ehr, dependency)

    @router.event(BooksClosed, dependency=dependency)
    async def note(event: BooksClosed, context: Context) -> None:
        await ehr.call(event.year, context)

    @router.request(GetTotal, dependency=dependency)
    async def get(_request: GetTotal, context: Context) -> Total:
        await ehr.call("request", context)
        return Total(total=0)

    ledger, client = await buses.bus("ledger"), await buses.bus("client")
    await buses.serve(ledger, router)
    await submit(client, 6)
    await happens(lambda: len(ehr.calls) == 5, "an open breaker")
    await ledger.publish(BooksClosed())
    with pytest.raises(Unavailable) as refused:
        await client.request(GetTotal(), timeout=1)
    assert len(ehr.calls) == 5
    assert executed_of(refused.value) == "no"
    assert 0 < (refused.value.retry_after or 0) <= 10
    assert "ledger.total.v1: the dependency ehr of the service is down" in str(refused.value)
    assert "(5 consecutive failures (EhrDown))" in str(refused.value)
    ehr.is_down = False
    await happens(lambda: len(ehr.done) == 7, "the jobs and the event")
    assert await client.request(GetTotal(), timeout=1) == Total(total=0)


@in_memory
async def test_a_paused_consumer_stays_ready_and_says_which_dependency_is_down(
    buses: MemoryBuses,
) -> None:
    ehr = Ehr(is_down=True)
    ledger, client = await buses.bus("ledger"), await buses.bus("client")
    await buses.serve(ledger, job_router(ehr, of_ehr(probe_interval=10)))
    assert pauses_of(ledger) == [()]
    await submit(client, 6)
    await happens(lambda: len(ehr.calls) == 5, "an open breaker")
    assert (pauses_of(ledger), ledger.ready) == ([("dependency:ehr",)], True)
    assert ledger.report.pauses == {"dependency:ehr"}
    assert ledger.report.stats().handlers[0].free == 1  # a held message takes no slot
    ehr.is_down = False
    await happens(lambda: len(ehr.done) == 6, "the jobs")
    assert (pauses_of(ledger), ledger.ready) == ([()], True)


@in_memory
async def test_an_outage_writes_one_line_at_its_begin_and_one_at_its_end(
    buses: MemoryBuses,
) -> None:
    ehr, seen = Ehr(is_down=True), list[logging.LogRecord]()
    handler = logging.Handler()
    handler.emit = seen.append  # type: ignore[assignment]
    logger = logging.getLogger("bus.dependency")
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        ledger, client = await buses.bus("ledger"), await buses.bus("client")
        await buses.serve(ledger, job_router(ehr, of_ehr(probe_interval=10)))
        await submit(client, 8)
        await happens(lambda: len(ehr.calls) == 7, "two probes")
        ehr.is_down = False
        await happens(lambda: len(ehr.done) == 8, "the jobs")
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
    begin, end = seen
    assert (begin.levelname, begin.getMessage()) == (
        "WARNING",
        (
            "ledger: the dependency ehr is down: 5 consecutive failures (EhrDown); its events and "
            "jobs wait, and one message tries every 10 s"
        ),
    )
    assert (end.levelname, end.getMessage()) == (
        "INFO",
        (
            "ledger: the dependency ehr is back after 30 s (probes: 3, held messages: 0, messages "
            "that returned by a retry tier: 3)"
        ),
    )


@in_memory
async def test_a_message_is_held_for_half_of_the_consumer_timeout_and_then_returns_by_a_tier(
    buses: MemoryBuses,
) -> None:
    ehr = Ehr(is_down=True)
    router = job_router(ehr, of_ehr(probe_interval=30), concurrency=8, timeout=1)
    ledger = await buses.bus("ledger", consumer_timeout=200)
    client = await buses.bus("client")
    await buses.serve(ledger, router)
    loop = asyncio.get_running_loop()
    await submit(client, 30)
    await happens(lambda: len(ehr.calls) == 5, "an open breaker")
    opened = loop.time()
    await happens(lambda: buses.broker.depth("ledger.retry.30s") == 0, "the return of the first 5")
    await happens(lambda: buses.broker.depth("ledger.retry.30s") >= 2, "a return by a tier", 300)
    assert 90 <= loop.time() - opened <= 101
    assert {wire.headers.get("attempt", 1) for wire in buses.broker.peek("ledger.retry.30s")} == {1}
    assert all("x-delivery-count" not in wire.headers for wire in buses.broker.peek(JOBS))
    ehr.is_down = False
    await happens(lambda: len(ehr.done) == 30, "all jobs")
    assert (sorted(ehr.done), set(ehr.attempts)) == ([*range(30)], {1})


@in_memory
async def test_a_service_that_stops_requeues_the_messages_that_it_holds_at_once(
    buses: MemoryBuses,
) -> None:
    ehr, loop = Ehr(is_down=True), asyncio.get_running_loop()
    ledger, client = await buses.bus("ledger"), await buses.bus("client")
    async with ledger.serving(job_router(ehr, of_ehr(), concurrency=4)):
        await submit(client, 20)
        await happens(lambda: len(ehr.calls) == 5, "an open breaker")
        await happens(lambda: buses.broker.unacked(JOBS) >= 4, "messages in hand")
        stopped = loop.time()
    assert loop.time() - stopped < 1
    tier = buses.broker.depth("ledger.retry.30s")
    assert buses.broker.depth(JOBS) + tier == 20
    assert buses.broker.unacked(JOBS) == 0


@in_memory
async def test_each_message_is_handled_once_if_the_connection_is_lost_while_it_is_held(
    buses: MemoryBuses,
) -> None:
    ehr, dependency = Ehr(is_down=True), of_ehr(probe_interval=5)
    client = await buses.bus("client")
    workers = [await buses.bus("ledger"), await buses.bus("ledger")]
    for worker in workers:
        await buses.serve(worker, job_router(ehr, dependency, concurrency=4))
    await submit(client, 40)
    await happens(lambda: pauses_of(workers[0]) == [("dependency:ehr",)], "an open breaker")
    await happens(lambda: pauses_of(workers[1]) == [("dependency:ehr",)], "an open breaker")
    assert len(ehr.calls) <= 2 * 5
    for _ in range(3):
        buses.broker.drop_all()
        await happens(lambda: all(worker.ready for worker in workers), "the connections")
        await asyncio.sleep(7)
    ehr.is_down = False
    await happens(lambda: len(ehr.done) >= 40, "all jobs")
    await asyncio.sleep(60)
    assert (sorted(ehr.done), dead(buses, JOBS)) == ([*range(40)], 0)
    assert set(ehr.attempts) == {1}


@pytest.mark.parametrize(
    ("threshold", "concurrency"), [(5, 5), (2, 2), (1, 4), (5, 8), (5, 16), (20, 4), (1, 1)]
)
def test_at_most_the_threshold_or_the_concurrency_of_calls_meet_an_outage_in_an_idle_queue(
    threshold: int, concurrency: int
) -> None:
    @in_memory
    async def run(buses: MemoryBuses) -> None:
        ehr = Ehr(is_down=True, seconds=0.3)
        dependency = of_ehr(consecutive_failures=threshold, probe_interval=30)
        ledger, client = await buses.bus("ledger"), await buses.bus("client")
        await buses.serve(ledger, job_router(ehr, dependency, concurrency=concurrency))
        await submit(client, 1)
        await happens(lambda: ehr.calls, "the first call")
        await submit(client, 60)  # the broker delivers one more than the concurrency
        await happens(lambda: pauses_of(ledger) == [("dependency:ehr",)], "an open breaker")
        await asyncio.sleep(20)
        assert len(ehr.calls) == max(threshold, concurrency)

    run()


@in_memory
async def test_the_handlers_of_one_dependency_share_the_bound_of_its_calls(
    buses: MemoryBuses,
) -> None:
    ehr, dependency = Ehr(is_down=True, seconds=0.3), of_ehr(probe_interval=30)
    router = job_router(ehr, dependency, concurrency=4)

    @router.event(BooksClosed, dependency=dependency, concurrency=3)
    async def note(event: BooksClosed, context: Context) -> None:
        await ehr.call(event.year, context)

    ledger, client = await buses.bus("ledger"), await buses.bus("client")
    await buses.serve(ledger, router)
    await asyncio.gather(submit(client, 1), ledger.publish(BooksClosed()))
    await happens(lambda: len(ehr.calls) == 2, "the first calls")
    await submit(client, 20)
    await asyncio.gather(*(ledger.publish(BooksClosed()) for _ in range(20)))
    await happens(lambda: ("dependency:ehr",) in pauses_of(ledger), "an open breaker")
    await asyncio.sleep(20)
    assert len(ehr.calls) == 4 + 3


@in_memory
async def test_jobs_that_always_fail_do_not_keep_those_of_another_sender(
    buses: MemoryBuses,
) -> None:
    router, done, loop = Router("ledger"), list[int](), asyncio.get_running_loop()

    @router.job(
        CloseBooks, dependency=of_ehr(consecutive_failures=2, probe_interval=10), concurrency=16
    )
    async def close(job: CloseBooks) -> Total:
        if job.year < 0:
            raise EhrDown
        done.append(job.year)
        return Total(total=job.year)

    ledger, shop = await buses.bus("ledger"), await buses.bus("shop")
    evil = [await buses.bus(f"evil{number}") for number in range(3)]
    await buses.serve(ledger, router)
    for number in range(4 + 8):
        await evil[number % 3].submit(CloseBooks(year=-1))
    began = loop.time()
    await shop.submit(CloseBooks(year=1))
    await happens(lambda: done, "the job of the other sender")
    assert loop.time() - began <= 4 * 10 + 1
