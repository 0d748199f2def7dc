"""The metrics of the store: rows by state, the oldest waiting job, and times of statements."""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest
from typing_extensions import override

from bus import Bus, Job, Router, contract
from bus.errors import Unavailable
from bus.integrations.prometheus import totals
from bus.messaging.envelope import Envelope
from bus.messaging.jobs.records import AttemptEnd, JobKey, NewJob
from bus.messaging.ports.store import Store
from bus.messaging.service_info import Series
from bus.messaging.store_instruments import JOBS_ROWS
from bus.runtime.store_rows import MIN_SECONDS, StoreRows
from bus.storage.measured_store import measured_store
from bus.storage.memory.job_store import MemoryJobStore
from bus.storage.memory.meter import MemoryMeter
from bus.storage.memory.store import MemoryStore
from bus.testing import MemoryBuses, MemoryTransport
from bus.testing.explicit_settings import ExplicitSettings
from tests.unit.runtime.in_memory import in_memory

QUEUE = "forge.jobs.weld.v1"


@contract("forge.weld", version=1)
class Weld(Job[None]):
    number: int


class CountedJobs(MemoryJobStore):
    """Jobs that count their queries, and that can be away."""

    queries, is_away = 0, False

    @override
    async def counts(self) -> Any:
        self.queries += 1
        if self.is_away:
            raise Unavailable("the database does not answer")
        return await super().counts()


class CountedStore(MemoryStore):
    def __init__(self, clock: Any) -> None:
        super().__init__(clock=clock)
        self.counted = CountedJobs(clock=clock)

    @property
    @override
    def jobs(self) -> CountedJobs:
        return self.counted


async def record(store: Store, *ids: str, queue: str = QUEUE, at: float | None = None) -> None:
    jobs = [
        NewJob(
            key=JobKey("yard", id_),
            queue=queue,
            envelope=Envelope(
                id=id_, type="forge.weld.v1", role="job", source="yard", body=b"{}", timestamp=1
            ),
            run_at=at,
        )
        for id_ in ids
    ]
    await store.jobs.record(jobs)


def values(series: Sequence[Series], name: str) -> dict[tuple[str, ...], float]:
    return {tuple(each.labels.values()): each.value for each in series if each.name == name}


@asynccontextmanager
async def forge(buses: MemoryBuses, store: MemoryStore) -> AsyncIterator[Bus]:
    """Serve the forge, paused, so that its jobs stay as they are."""
    router = Router("forge")

    @router.job(Weld)
    async def weld(_: Weld) -> None: ...

    transport = MemoryTransport(buses.broker, clock=buses.clock)
    bus = Bus(
        "forge",
        settings=ExplicitSettings(auth="off"),
        transport=transport,
        store=store,
        clock=buses.clock,
    )
    async with bus, bus.serving(router):
        yield bus


async def test_the_rows_are_reported_by_state_with_zeros_and_the_oldest_waiting_job() -> None:
    now = time.time()
    store = MemoryStore(clock=lambda: now)
    rows = StoreRows(store, clock=lambda: now)
    async with rows.following([QUEUE, "forge.jobs.weld.v2"]):
        await record(store, "a", "b", "c", at=now - 90)
        (claimed,) = await store.jobs.claim(QUEUE, worker="w", limit=1, lease=30)
        await store.jobs.end([AttemptEnd(attempt=claimed.attempt_of, state="succeeded")])
        await rows.count()
        series = rows.series()
    assert values(series, "jobs.rows") == {
        ("forge.weld", version, state): count
        for version, counts in (("1", (2, 0, 0, 1, 0, 0)), ("2", (0,) * 6))
        for state, count in zip(
            ("queued", "running", "retrying", "succeeded", "failed", "cancelled"),
            counts,
            strict=True,
        )
    }
    oldest = values(series, "jobs.oldest_waiting")
    assert oldest == {("forge.weld", "1"): pytest.approx(90), ("forge.weld", "2"): 0}
    assert values(series, "store.reachable") == {(): 1}


async def test_a_job_that_waits_for_its_time_is_not_late() -> None:
    now = time.time()
    store = MemoryStore(clock=lambda: now)
    rows = StoreRows(store, clock=lambda: now)
    async with rows.following([QUEUE]):
        await record(store, "a", at=now + 600)
        await rows.count()
        assert values(rows.series(), "jobs.oldest_waiting") == {("forge.weld", "1"): 0}


async def test_a_queue_without_a_handler_is_reported_because_nobody_starts_its_jobs() -> None:
    store = MemoryStore()
    rows = StoreRows(store, clock=time.time)
    async with rows.following([]):
        await record(store, "a", queue="forge.jobs.old.v3")
        await rows.count()
        rows_of = values(rows.series(), "jobs.rows")
    assert rows_of["forge.old", "3", "queued"] == 1


@in_memory
async def test_the_rows_are_counted_only_while_somebody_reads_and_at_most_every_10_s(
    buses: MemoryBuses,
) -> None:
    store = CountedStore(buses.clock)
    async with forge(buses, store) as bus:
        await asyncio.sleep(60)
        assert store.jobs.queries == 0
        for _ in range(120):  # a reader that is too eager
            bus.report.stats()
            await asyncio.sleep(0.5)
        assert store.jobs.queries == pytest.approx(60 / MIN_SECONDS, abs=1)
        assert values(bus.report.stats().series, "store.reachable") == {(): 1}
        await asyncio.sleep(2 * MIN_SECONDS)
        queries = store.jobs.queries
        await asyncio.sleep(3600)
        assert store.jobs.queries == queries
        stats = bus.report.stats()  # the numbers of an hour ago are not shown
        assert values(stats.series, "jobs.rows") == {}


@in_memory
async def test_a_store_that_is_away_is_reported_and_the_last_rows_stay_for_two_minutes(
    buses: MemoryBuses,
) -> None:
    store = CountedStore(buses.clock)
    async with forge(buses, store) as bus:
        await _read_for(bus, 30)
        store.jobs.is_away = True
        await _read_for(bus, 30)
        series = bus.report.stats().series
        assert values(series, "store.reachable") == {(): 0}
        assert ("forge.weld", "1", "queued") in values(series, "jobs.rows")
        await _read_for(bus, 120)
        assert values(bus.report.stats().series, "jobs.rows") == {}
        store.jobs.is_away = False
        await _read_for(bus, 30)
        assert values(bus.report.stats().series, "store.reachable") == {(): 1}


async def _read_for(bus: Bus, seconds: int) -> None:
    for _ in range(seconds):
        bus.report.stats()
        await asyncio.sleep(1)


@in_memory
async def test_a_service_without_a_store_has_no_gauges_of_rows(buses: MemoryBuses) -> None:
    bus = await buses.bus("anvil")
    names = {each.name for each in bus.report.stats().series}
    assert names.isdisjoint({"jobs.rows", "jobs.oldest_waiting", "store.reachable"})


async def test_the_duration_of_each_statement_is_measured_by_its_name() -> None:
    meter = MemoryMeter()
    store = measured_store(CountedStore(time.time), meter)
    await record(store, "a")
    await store.jobs.counts()
    await store.jobs.counts()
    await store.pauses()
    await store.jobs.changed(QUEUE, timeout=0)  # only waits
    counts = {each.labels["statement"]: each.count for each in meter.snapshot()}
    assert counts == {"record": 1, "counts": 2, "pauses": 1}


async def test_a_statement_that_fails_is_measured_too() -> None:
    meter, inner = MemoryMeter(), CountedStore(time.time)
    inner.jobs.is_away = True
    with pytest.raises(Unavailable):
        await measured_store(inner, meter).jobs.counts()
    (series,) = meter.snapshot()
    assert (series.labels, series.count) == ({"statement": "counts"}, 1)


def test_the_exporter_takes_the_largest_number_of_rows_of_all_instances() -> None:
    assert totals.COMBINED[JOBS_ROWS] is max
