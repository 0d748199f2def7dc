"""Pruning of a store on SQLite and PostgreSQL."""

from bus.messaging.envelope import Envelope
from bus.messaging.jobs.pruning import PruneReport, Retention
from bus.messaging.jobs.records import Attempt, AttemptEnd, JobKey, NewJob
from bus.messaging.jobs.retention import COPIES_SECONDS
from bus.messaging.jobs.states import JobState
from bus.messaging.ports.inbox import HandledMessage, MessageKey
from bus.settings import load_settings
from bus.storage.sqlalchemy.store import SqlStore
from tests.integration.store.test_open import create

RETENTION = Retention(succeeded=100, failed=1000, inbox=5000)
START, EXPIRES = 1_000_000.0, 1_000_050.0


class Clock:
    now = START

    def __call__(self) -> float:
        return self.now


async def add(store: SqlStore, name: str, state: JobState | None) -> None:
    """Record a job, and end it in a state. None: it keeps running."""
    key = JobKey("office", name)
    envelope = Envelope(
        id=name,
        type="prune.scan.v1",
        role="job",
        source="office",
        body=b"{}",
        timestamp=int(START),
        expires=int(EXPIRES * 1000),
    )
    await store.jobs.record([NewJob(key=key, queue="prune", envelope=envelope)])
    (claimed,) = await store.jobs.claim("prune", worker="w", limit=1, lease=1e9)
    if state is not None:
        await store.jobs.end(
            [AttemptEnd(attempt=Attempt(key, claimed.attempt_of.token), state=state)]
        )


async def test_payloads_go_by_the_state_of_the_job_and_the_last_trace_when_no_copy_can_be_alive(
    store_url: str,
) -> None:
    await create(store_url)
    clock = Clock()
    store = SqlStore(load_settings(auth="off", store=store_url), "prune", clock=clock)
    await store.open()
    try:
        for number in range(3):
            await add(store, f"good-{number}", "succeeded")
        await add(store, "off", "cancelled")
        await add(store, "bad", "failed")
        await add(store, "busy", None)
        await store.inbox.add(MessageKey("prune", "office", "seen"), HandledMessage())
        assert await store.prune(RETENTION) == PruneReport()

        clock.now = START + 101
        assert await store.pruning.count(RETENTION, now=clock.now) == PruneReport(payloads=4)
        assert await store.prune(RETENTION) == PruneReport(payloads=4)
        pruned = await store.jobs.find(JobKey("office", "good-0"))
        assert pruned is not None
        assert (pruned.state, pruned.envelope, pruned.is_pruned) == ("succeeded", None, True)
        kept = await store.jobs.find(JobKey("office", "bad"))
        assert kept is not None
        assert kept.envelope is not None

        clock.now = START + 1001
        assert await store.prune(RETENTION) == PruneReport(payloads=1)
        clock.now = START + 5001
        assert await store.pruning.count(RETENTION, now=clock.now) == PruneReport(inbox=1)
        assert await store.prune(RETENTION) == PruneReport(inbox=1)

        clock.now = EXPIRES + COPIES_SECONDS - 1
        assert await store.prune(RETENTION) == PruneReport()
        clock.now = EXPIRES + COPIES_SECONDS + 1
        assert await store.pruning.count(RETENTION, now=clock.now) == PruneReport(jobs=5)
        assert await store.prune(RETENTION) == PruneReport(jobs=5)
        assert await store.jobs.find(JobKey("office", "good-0")) is None
        busy = await store.jobs.find(JobKey("office", "busy"))
        assert busy is not None
        assert busy.envelope is not None
    finally:
        await store.close()


async def test_one_instance_prunes_within_an_interval(store_url: str) -> None:
    await create(store_url)
    clock = Clock()
    settings = load_settings(auth="off", store=store_url)
    stores = [SqlStore(settings, "prune", clock=clock) for _ in range(2)]
    for each in stores:
        await each.open()
    try:
        assert await stores[0].prune(RETENTION, every=300) is not None
        assert await stores[1].prune(RETENTION, every=300) is None
        clock.now += 301
        assert await stores[1].prune(RETENTION, every=300) is not None
        assert await stores[0].prune(RETENTION, every=300) is None
    finally:
        for each in stores:
            await each.close()
