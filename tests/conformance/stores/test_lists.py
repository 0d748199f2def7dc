"""Lists and counts of jobs, and the notification of changes."""

import asyncio

import pytest

from bus.messaging.jobs.records import JobFilter
from bus.messaging.jobs.states import JobState
from bus.messaging.ports.job_store import JobStore
from bus.storage.sqlalchemy.job_store import SqlJobStore
from bus.storage.sqlalchemy.notifications import NotifyingDatabase
from tests.conformance.stores.made import (
    LEASE,
    QUEUE,
    Clock,
    claim_one,
    ended,
    new_job,
    progress,
    record_one,
    request,
    run_one,
    update,
)
from tests.polling import until

BRIEF = 0.05
LONG = 20.0


async def ids(jobs: JobStore, **selection: object) -> list[str]:
    return [each.key.id for each in await jobs.list(JobFilter(**selection))]  # type: ignore[arg-type]


async def test_a_list_has_the_newest_submission_first_and_no_payload(jobs: JobStore) -> None:
    await record_one(jobs, id_="old", timestamp=100)
    attempt = await claim_one(jobs)
    await jobs.report(attempt, progress(3, 0.5))
    await jobs.end([ended(attempt, "succeeded", result=update())])
    await record_one(jobs, id_="new", timestamp=200)
    new, old = await jobs.list()
    assert (new.key.id, old.key.id) == ("new", "old")
    assert (old.envelope, old.result) == (None, None)
    assert old.progress is not None
    assert (old.progress.number, old.progress.progress, old.progress.update) == (3, 0.5, None)


async def test_the_pages_of_a_list_have_each_job_once(jobs: JobStore) -> None:
    batch = [new_job(f"a{number}", timestamp=100 + number // 3) for number in range(10)]
    await jobs.record([*batch, new_job("a1", source="archive", timestamp=100)])
    listed = await jobs.list()
    pages = [await jobs.list(limit=4)]
    while page := await jobs.list(limit=4, after=pages[-1][-1]):
        pages.append(page)
    assert [len(page) for page in pages] == [4, 4, 3]
    assert [each.key for page in pages for each in page] == [each.key for each in listed]
    assert len({each.key for each in listed}) == 11


async def test_a_list_has_the_jobs_that_match_each_value_of_a_filter(jobs: JobStore) -> None:
    await jobs.record(
        [
            new_job("aa1", timestamp=1, correlation_id="x"),
            new_job("aa2", timestamp=2, source="archive"),
            new_job("b%_1", timestamp=3, type="library.print.v2", queue="library.print.v2"),
        ]
    )
    assert await ids(jobs, ids=("aa",)) == ["aa2", "aa1"]
    assert await ids(jobs, ids=("aa1", "b")) == ["b%_1", "aa1"]
    assert await ids(jobs, ids=("a%",)) == []
    assert await ids(jobs, ids=("b%",)) == ["b%_1"]
    assert await ids(jobs, ids=("aa", "b%_1"), has_whole_ids=True) == ["b%_1"]
    assert await ids(jobs, submitter="archive") == ["aa2"]
    assert await ids(jobs, submitter="archive", ids=("aa1",)) == []
    assert await ids(jobs, correlation_id="x") == ["aa1"]
    assert await ids(jobs, types=("library.print.v2",)) == ["b%_1"]
    assert await ids(jobs, queues=(QUEUE, "another")) == ["aa2", "aa1"]
    assert await ids(jobs, submitted_before=2.0) == ["aa1"]
    assert await ids(jobs, submitted_after=2.0) == ["b%_1"]


@pytest.mark.parametrize("state", ["queued", "running", "retrying", "succeeded", "failed"])
async def test_a_list_can_be_limited_to_states(jobs: JobStore, state: JobState) -> None:
    await run_one(jobs, state)
    assert await ids(jobs, states=(state, "cancelled")) == ["a1"]
    assert await ids(jobs, states=("cancelled",)) == []


async def test_a_list_can_be_limited_to_codes_of_the_last_error(jobs: JobStore) -> None:
    await run_one(jobs, "failed")
    await run_one(jobs, "succeeded", id_="a2")
    assert await ids(jobs, codes=("internal", "not_found")) == ["a1"]
    assert await ids(jobs, codes=("not_found",)) == []


async def test_counts_are_by_queue_and_state_with_the_earliest_time(
    jobs: JobStore, clock: Clock
) -> None:
    await run_one(jobs, "succeeded")
    await jobs.record(
        [
            new_job("a2", run_at=clock.now + 9),
            new_job("a3", run_at=clock.now + 8),
            new_job("b1", queue="another", run_at=7.0),
        ]
    )
    counts = [(queue, state, number) for queue, state, number, _ in await jobs.counts()]
    assert counts == [("another", "queued", 1), (QUEUE, "queued", 2), (QUEUE, "succeeded", 1)]
    times = [earliest for *_, earliest in await jobs.counts()]
    assert times == [7.0, clock.now + 8, None]


async def settle(jobs: JobStore) -> None:
    """Wait until the store would notify of a change, and has notified of the earlier ones."""
    if isinstance(jobs, SqlJobStore) and isinstance(jobs._notifications, NotifyingDatabase):
        notifications = jobs._notifications
        await jobs.changed(QUEUE, timeout=BRIEF)
        await until(lambda: notifications.is_connected, "the connection for notifications")
    while await jobs.changed(QUEUE, timeout=BRIEF):
        pass


async def test_no_change_is_notified_while_nothing_happens(jobs: JobStore) -> None:
    await settle(jobs)
    assert await jobs.changed(QUEUE, timeout=BRIEF) is False


@pytest.mark.parametrize("change", ["record", "return", "retry", "cancel"])
async def test_another_process_is_notified_of_a_job_that_may_be_due(
    jobs: JobStore, other: JobStore, kind: str, change: str
) -> None:
    if kind == "sqlite":
        pytest.skip("SQLite has no notifications, so its workers ask the store")
    key = await run_one(jobs, "failed" if change == "retry" else "queued")
    attempt = await claim_one(jobs) if change in {"return", "cancel"} else None
    await settle(other)
    waiting = asyncio.create_task(other.changed(QUEUE, timeout=LONG))
    await asyncio.sleep(0)
    if change == "record":
        await jobs.record([new_job("a2")])
    elif change == "return":
        assert attempt is not None
        await jobs.end([ended(attempt, "queued")])
    elif change == "retry":
        await jobs.retry(key, by="operator", reason="again")
    else:
        await jobs.cancel(key, request())
    assert await waiting is True


async def test_a_change_of_another_queue_is_not_notified(jobs: JobStore, other: JobStore) -> None:
    await settle(other)
    await jobs.record([new_job(queue="another")])
    assert await other.changed(QUEUE, timeout=BRIEF) is False


async def test_a_job_of_another_worker_stays_when_a_worker_only_asks(jobs: JobStore) -> None:
    key = await run_one(jobs, "running")
    assert await jobs.claim(QUEUE, worker="w2", limit=5, lease=LEASE) == []
    found = await jobs.find(key)
    assert found is not None
    assert found.worker == "w1"
