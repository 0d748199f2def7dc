"""Recorded retries of failed jobs, and the retention of payloads."""

import pytest

from bus.errors import FailedPrecondition
from bus.messaging.jobs.records import JobKey, JobLife
from bus.messaging.jobs.retention import COPIES_SECONDS
from bus.messaging.jobs.states import JobState
from bus.messaging.ports.job_store import JobStore
from tests.conformance.stores.made import (
    FAILURE,
    LEASE,
    QUEUE,
    Clock,
    claim_one,
    ended,
    new_job,
    progress,
    record_one,
    run_one,
    update,
)


async def test_a_failed_job_begins_its_next_life_as_if_it_were_new(
    jobs: JobStore, clock: Clock
) -> None:
    key = await record_one(jobs)
    await claim_one(jobs)
    clock.now += LEASE
    attempt = await claim_one(jobs)  # after a loss
    await jobs.report(attempt, progress(8))
    await jobs.end([ended(attempt, "retrying", headers={"first-failed-at": 1})])
    await jobs.end([ended(await claim_one(jobs), "failed", result=update())])
    clock.now += 60
    found = await jobs.retry(key, by="operator", reason="the disk is free again")
    assert found is not None
    assert (found.state, found.life, found.attempt, found.losses) == ("queued", 2, 0, 0)
    assert (found.failure, found.result, found.progress, found.ended_at) == (None,) * 4
    assert found.lives == (
        JobLife(
            life=2,
            by="operator",
            reason="the disk is free again",
            at=clock.now,
            failure=FAILURE,
        ),
    )
    assert await jobs.find(key) == found
    (claimed,) = await jobs.claim(QUEUE, worker="w1", limit=1, lease=LEASE)
    assert (claimed.life, claimed.losses, claimed.progress_number) == (2, 0, 8)
    assert claimed.envelope == new_job().envelope


async def test_a_new_life_fences_the_attempts_of_the_life_before(jobs: JobStore) -> None:
    key = await record_one(jobs)
    old = await claim_one(jobs)
    await jobs.end([ended(old, "failed")])
    await jobs.retry(key, by="operator", reason="again")
    new = await claim_one(jobs)
    assert new.token > old.token + 1
    assert await jobs.renew([old], lease=LEASE) == [False]
    assert await jobs.end([ended(old, "succeeded")]) == ["failed"]  # as it was written
    found = await jobs.find(key)
    assert found is not None
    assert found.state == "running"


@pytest.mark.parametrize("state", ["queued", "running", "retrying", "succeeded", "cancelled"])
async def test_a_job_that_has_not_failed_does_not_begin_a_life(
    jobs: JobStore, state: JobState
) -> None:
    key = await run_one(jobs, state)
    before = await jobs.find(key)
    assert await jobs.retry(key, by="operator", reason="again") == before
    assert await jobs.find(key) == before


async def test_each_life_expires_as_long_after_its_begin_as_the_first_one(
    jobs: JobStore, clock: Clock
) -> None:
    submitted, lifetime = clock.now - 100, 600
    key = await record_one(
        jobs, timestamp=int(submitted), expires=int((submitted + lifetime) * 1000)
    )
    (first,) = await jobs.claim(QUEUE, worker="w1", limit=1, lease=LEASE)
    assert first.envelope.expires == (submitted + lifetime) * 1000
    await jobs.end([ended(first.attempt_of, "failed")])
    for _ in range(2):
        clock.now += 10_000
        found = await jobs.retry(key, by="operator", reason="the worker is back")
        assert found is not None
        assert found.expires == clock.now + lifetime
        (claimed,) = await jobs.claim(QUEUE, worker="w1", limit=1, lease=LEASE)
        assert claimed.envelope.expires == (clock.now + lifetime) * 1000
        await jobs.end([ended(claimed.attempt_of, "failed")])


async def test_a_job_that_never_expires_has_no_expiry_in_its_next_life(jobs: JobStore) -> None:
    key = await run_one(jobs, "failed")
    found = await jobs.retry(key, by="operator", reason="again")
    assert found is not None
    assert found.expires is None
    (claimed,) = await jobs.claim(QUEUE, worker="w1", limit=1, lease=LEASE)
    assert claimed.envelope.expires is None


async def test_each_life_is_recorded(jobs: JobStore) -> None:
    key = await run_one(jobs, "failed")
    for life in (2, 3):
        await jobs.retry(key, by="operator", reason=f"life {life} 📚")
        await jobs.end([ended(await claim_one(jobs), "failed")])
    found = await jobs.find(key)
    assert found is not None
    assert [(each.life, each.reason) for each in found.lives] == [
        (2, "life 2 📚"),
        (3, "life 3 📚"),
    ]


async def test_an_unknown_job_has_no_next_life(jobs: JobStore) -> None:
    assert await jobs.retry(JobKey("reader", "a9"), by="operator", reason="again") is None


@pytest.mark.parametrize("state", ["succeeded", "failed", "cancelled"])
async def test_pruning_removes_payloads_and_keeps_the_id_and_the_state(
    jobs: JobStore, clock: Clock, state: JobState
) -> None:
    key = await record_one(jobs)
    attempt = await claim_one(jobs)
    await jobs.report(attempt, progress(2, 0.5))
    await jobs.end([ended(attempt, state, result=update())])
    clock.now += 10
    pruned = await jobs.prune(state, ended_before=clock.now, limit=10, now=clock.now)
    assert pruned == (1, 0)
    found = await jobs.find(key)
    assert found is not None
    assert (found.state, found.is_pruned, found.envelope, found.result) == (state, True, None, None)
    assert found.progress is not None
    assert (found.progress.number, found.progress.update) == (2, None)
    assert await jobs.record([new_job()]) == [False]
    assert await jobs.prune(state, ended_before=clock.now, limit=10, now=clock.now) == (0, 0)


@pytest.mark.parametrize("state", ["queued", "running", "retrying", "failed"])
async def test_pruning_leaves_jobs_in_other_states(
    jobs: JobStore, clock: Clock, state: JobState
) -> None:
    key = await run_one(jobs, state)
    before = await jobs.find(key)
    for other in ("succeeded", "cancelled"):
        later = clock.now + 100
        assert await jobs.prune(other, ended_before=later, limit=10, now=later) == (0, 0)
    assert await jobs.find(key) == before


async def test_pruning_leaves_jobs_that_ended_later_and_stops_at_its_limit(
    jobs: JobStore, clock: Clock
) -> None:
    for number in range(5):
        await run_one(jobs, "succeeded", id_=f"a{number}")
        clock.now += 1
    before = clock.now - 2  # three have ended before this time
    assert await jobs.prune("succeeded", ended_before=before, limit=2, now=clock.now) == (2, 0)
    assert await jobs.prune("succeeded", ended_before=before, limit=2, now=clock.now) == (1, 0)
    kept = [each.key.id for each in await jobs.list() if not each.is_pruned]
    assert kept == ["a4", "a3"]


async def test_a_job_without_its_payload_cannot_be_retried(jobs: JobStore, clock: Clock) -> None:
    key = await run_one(jobs, "failed")
    await jobs.prune("failed", ended_before=clock.now + 1, limit=10, now=clock.now)
    with pytest.raises(FailedPrecondition, match="a1: retention has removed the payload"):
        await jobs.retry(key, by="operator", reason="again")
    found = await jobs.find(key)
    assert found is not None
    assert (found.state, found.life) == ("failed", 1)


async def test_a_row_is_removed_when_no_copy_of_its_message_can_arrive(
    jobs: JobStore, clock: Clock
) -> None:
    expires = clock.now + 100
    key = await run_one(jobs, "succeeded", expires=int(expires * 1000))
    await run_one(jobs, "succeeded", id_="endless")
    soon = expires + COPIES_SECONDS - 1
    assert await jobs.prune("succeeded", ended_before=soon, limit=10, now=soon) == (2, 0)
    assert await jobs.find(key) is not None
    assert await jobs.prune("succeeded", ended_before=soon, limit=10, now=soon + 1) == (0, 1)
    assert [each.key.id for each in await jobs.list()] == ["endless"]
