"""Cancel requests in each state of a job."""

import pytest

from bus.messaging.jobs.records import CancelRequest, JobKey
from bus.messaging.jobs.states import JobState
from bus.messaging.ports.job_store import JobStore
from tests.conformance.stores.made import (
    LEASE,
    QUEUE,
    Clock,
    claim_one,
    ended,
    record_one,
    request,
    run_one,
    update,
)


@pytest.mark.parametrize("state", ["queued", "retrying"])
async def test_a_job_that_waits_is_cancelled_at_once(
    jobs: JobStore, clock: Clock, state: JobState
) -> None:
    key = await run_one(jobs, state)
    found = await jobs.cancel(key, request())
    assert found is not None
    assert (found.state, found.cancel, found.ended_at) == ("cancelled", request(), clock.now)
    assert await jobs.find(key) == found
    assert await jobs.claim(QUEUE, worker="w1", limit=1, lease=LEASE) == []


async def test_a_running_job_gets_the_request_with_its_next_renewal(
    jobs: JobStore, other: JobStore
) -> None:
    key = await record_one(jobs)
    attempt = await claim_one(jobs)
    found = await other.cancel(key, request())
    assert found is not None
    assert (found.state, found.cancel) == ("running", request())
    assert await jobs.renew([attempt], lease=LEASE) == [request()]


@pytest.mark.parametrize("state", ["retrying", "queued", "failed"])
async def test_a_job_with_a_request_that_does_not_succeed_is_cancelled(
    jobs: JobStore, clock: Clock, state: JobState
) -> None:
    key = await record_one(jobs)
    attempt = await claim_one(jobs)
    await jobs.cancel(key, request())
    assert await jobs.end([ended(attempt, state, result=update())]) == ["cancelled"]
    found = await jobs.find(key)
    assert found is not None
    assert (found.state, found.ended_at, found.result) == ("cancelled", clock.now, update())


async def test_a_worker_reads_the_requests_of_its_own_running_jobs(
    jobs: JobStore, other: JobStore
) -> None:
    key = await record_one(jobs)
    attempt = await claim_one(jobs)
    assert await jobs.cancel_requests("w1") == []
    await other.cancel(key, request())
    assert await jobs.cancel_requests("w1") == [(attempt, request())]
    assert await jobs.cancel_requests("w2") == []
    await jobs.end([ended(attempt, "cancelled")])
    assert await jobs.cancel_requests("w1") == []


@pytest.mark.parametrize("state", ["succeeded", "cancelled"])
async def test_a_handler_that_ends_after_a_request_decides_the_final_state(
    jobs: JobStore, state: JobState
) -> None:
    key = await record_one(jobs)
    attempt = await claim_one(jobs)
    await jobs.cancel(key, request())
    assert await jobs.end([ended(attempt, state)]) == [state]


async def test_a_job_with_a_request_and_a_lost_worker_is_cancelled(
    jobs: JobStore, other: JobStore, clock: Clock
) -> None:
    key = await record_one(jobs)
    attempt = await claim_one(jobs)
    await jobs.cancel(key, request())
    clock.now += LEASE
    assert await other.claim(QUEUE, worker="w2", limit=1, lease=LEASE) == []
    found = await jobs.find(key)
    assert found is not None
    assert (found.state, found.ended_at) == ("cancelled", clock.now)
    # A late failure of the lost worker must not bring the job back.
    assert await jobs.end([ended(attempt, "retrying")]) == [None]
    assert await jobs.find(key) == found


@pytest.mark.parametrize("state", ["succeeded", "failed", "cancelled"])
async def test_a_job_that_has_ended_does_not_change(jobs: JobStore, state: JobState) -> None:
    key = await run_one(jobs, state)
    before = await jobs.find(key)
    assert await jobs.cancel(key, request()) == before
    assert await jobs.find(key) == before


async def test_a_second_request_does_not_replace_the_first(jobs: JobStore) -> None:
    key = await run_one(jobs, "running")
    await jobs.cancel(key, request())
    found = await jobs.cancel(key, CancelRequest(by="operator", reason="again", at=9.0))
    assert found is not None
    assert found.cancel == request()


async def test_an_unknown_job_cannot_be_cancelled(jobs: JobStore) -> None:
    await record_one(jobs)
    assert await jobs.cancel(JobKey("another", "a1"), request()) is None


async def test_the_name_of_a_worker_can_have_any_character(jobs: JobStore) -> None:
    worker = "host\\1\0"
    key = await record_one(jobs)
    attempt = await claim_one(jobs, worker)
    await jobs.cancel(key, request())
    assert await jobs.cancel_requests(worker) == [(attempt, request())]
