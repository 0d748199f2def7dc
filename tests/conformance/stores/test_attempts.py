"""Claims, leases, fencing tokens and ends of attempts."""

import asyncio

import pytest

from bus.messaging.jobs.records import Attempt
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


async def claimed_ids(jobs: JobStore, limit: int = 100, **options: int) -> list[str]:
    claimed = await jobs.claim(QUEUE, worker="w1", limit=limit, lease=LEASE, **options)
    return [each.attempt_of.key.id for each in claimed]


async def test_a_claimed_job_runs_with_a_lease_and_a_token(jobs: JobStore, clock: Clock) -> None:
    key = await record_one(jobs)
    (claimed,) = await jobs.claim(QUEUE, worker="w1", limit=5, lease=LEASE)
    found = await jobs.find(key)
    assert found is not None
    assert (found.state, found.attempt, found.worker) == ("running", 1, "w1")
    assert (found.started_at, found.lease_until) == (clock.now, clock.now + LEASE)
    assert claimed.attempt_of == Attempt(key, found.token)
    assert (claimed.life, claimed.losses, claimed.queue) == (1, 0, QUEUE)
    assert claimed.envelope == new_job().envelope


async def test_two_claimers_never_share_a_job(jobs: JobStore, other: JobStore) -> None:
    await jobs.record([new_job(f"a{number}") for number in range(60)])

    async def take(store: JobStore, worker: str) -> list[str]:
        own: list[str] = []
        while claimed := await store.claim(QUEUE, worker=worker, limit=3, lease=LEASE):
            own += [each.attempt_of.key.id for each in claimed]
        return own

    shares = await asyncio.gather(
        *(take(store, f"w{number}") for number, store in enumerate([jobs, other, jobs, other]))
    )
    assert sorted(each for share in shares for each in share) == sorted(
        f"a{number}" for number in range(60)
    )


async def test_a_job_with_a_higher_priority_starts_first_and_then_the_earliest(
    jobs: JobStore, clock: Clock
) -> None:
    now = clock.now
    await jobs.record(
        [
            new_job("low", priority=-1, run_at=now - 9),
            new_job("late", run_at=now - 1),
            new_job("early", run_at=now - 2),
            new_job("high", priority=2),
        ]
    )
    assert await claimed_ids(jobs, 3) == ["high", "early", "late"]
    assert await claimed_ids(jobs, 3) == ["low"]


async def test_jobs_of_one_batch_start_in_their_order(jobs: JobStore) -> None:
    ids = [f"{number * 7 % 20:02}" for number in range(20)]
    await jobs.record([new_job(each) for each in ids])
    assert await claimed_ids(jobs) == ids


async def test_a_job_does_not_start_before_its_time(jobs: JobStore, clock: Clock) -> None:
    await jobs.record([new_job("later", run_at=clock.now + 5, priority=9), new_job("now")])
    assert await claimed_ids(jobs) == ["now"]
    clock.now += 5
    assert await claimed_ids(jobs) == ["later"]


async def test_a_claim_takes_only_jobs_of_its_queue(jobs: JobStore) -> None:
    await jobs.record([new_job("a1", queue="library.print.v1"), new_job("a2")])
    assert await claimed_ids(jobs) == ["a2"]


async def test_a_job_with_more_losses_than_the_limit_is_not_claimed(
    jobs: JobStore, clock: Clock
) -> None:
    await record_one(jobs)
    await claim_one(jobs)
    clock.now += LEASE
    assert await claimed_ids(jobs, most_losses=0) == []
    assert await claimed_ids(jobs, most_losses=1) == ["a1"]


async def test_a_lease_that_has_not_expired_is_not_taken_over(
    jobs: JobStore, other: JobStore, clock: Clock
) -> None:
    await record_one(jobs)
    attempt = await claim_one(jobs)
    clock.now += LEASE - 1
    assert await claimed_ids(other) == []
    assert await jobs.renew([attempt], lease=LEASE) == [True]
    clock.now += LEASE - 1
    assert await claimed_ids(other) == []


async def test_an_expired_lease_hands_the_job_over_and_counts_a_loss_and_no_attempt(
    jobs: JobStore, other: JobStore, clock: Clock
) -> None:
    key = await record_one(jobs)
    old = await claim_one(jobs)
    clock.now += LEASE
    (claimed,) = await other.claim(QUEUE, worker="w2", limit=1, lease=LEASE)
    assert claimed.attempt_of.token > old.token
    assert (claimed.losses, claimed.envelope.attempt) == (1, 1)
    found = await jobs.find(key)
    assert found is not None
    assert (found.worker, found.losses) == ("w2", 1)


async def test_a_job_of_a_lost_worker_is_claimed_in_its_place_of_the_order(
    jobs: JobStore, clock: Clock
) -> None:
    await record_one(jobs, id_="high", priority=1)
    await claim_one(jobs)
    clock.now += LEASE
    await jobs.record([new_job("low"), new_job("highest", priority=2)])
    assert await claimed_ids(jobs, 2) == ["highest", "high"]


async def test_all_jobs_of_a_lost_worker_come_back(jobs: JobStore, clock: Clock) -> None:
    await jobs.record([new_job(f"a{number}") for number in range(250)])
    assert len(await claimed_ids(jobs, 250)) == 250
    clock.now += LEASE
    back: list[str] = []
    while claimed := await claimed_ids(jobs, 250):
        back += claimed
    assert len({*back}) == len(back) == 250


async def test_an_expired_lease_of_another_queue_is_left_to_the_workers_of_that_queue(
    jobs: JobStore, clock: Clock
) -> None:
    key = await run_one(jobs, "running")
    clock.now += LEASE
    assert await jobs.claim("library.print.v1", worker="w2", limit=1, lease=LEASE) == []
    found = await jobs.find(key)
    assert found is not None
    assert found.state == "running"


async def test_one_missed_renewal_changes_nothing_before_another_worker_claims(
    jobs: JobStore, clock: Clock
) -> None:
    await record_one(jobs)
    attempt = await claim_one(jobs)
    clock.now += LEASE + 1
    assert await jobs.renew([attempt], lease=LEASE) == [True]
    assert await claimed_ids(jobs) == []


async def test_every_write_with_a_stale_token_is_refused(
    jobs: JobStore, other: JobStore, clock: Clock
) -> None:
    key = await record_one(jobs)
    stale = await claim_one(jobs)
    clock.now += LEASE
    await claim_one(other, "w2")
    before = await jobs.find(key)
    assert await jobs.renew([stale], lease=LEASE) == [False]
    assert await jobs.report(stale, progress(1)) is False
    assert await jobs.end([ended(stale, "succeeded", result=update())]) == [None]
    assert await jobs.end([ended(stale, "retrying")]) == [None]
    assert await jobs.find(key) == before


async def test_a_write_about_an_unknown_job_is_refused(jobs: JobStore) -> None:
    attempt = Attempt(new_job().key, 1)
    assert await jobs.renew([attempt], lease=LEASE) == [False]
    assert await jobs.report(attempt, progress(1)) is False
    assert await jobs.end([ended(attempt, "succeeded")]) == [None]


@pytest.mark.parametrize("state", ["succeeded", "failed", "cancelled"])
async def test_a_final_end_has_a_result_a_time_and_no_lease(
    jobs: JobStore, clock: Clock, state: JobState
) -> None:
    key = await record_one(jobs)
    attempt = await claim_one(jobs)
    clock.now += 4
    failure = None if state == "succeeded" else FAILURE
    assert await jobs.end([ended(attempt, state, result=update(), failure=failure)]) == [state]
    found = await jobs.find(key)
    assert found is not None
    assert (found.state, found.ended_at, found.lease_until) == (state, clock.now, None)
    assert (found.result, found.failure, found.worker) == (update(), failure, "w1")
    assert await claimed_ids(jobs) == []


async def test_a_failed_attempt_is_repeated_at_its_time_with_the_next_number(
    jobs: JobStore, clock: Clock
) -> None:
    key = await record_one(jobs)
    first = await claim_one(jobs)
    assert await jobs.end([ended(first, "retrying", run_at=clock.now + 7)]) == ["retrying"]
    found = await jobs.find(key)
    assert found is not None
    assert (found.state, found.failure, found.ended_at) == ("retrying", FAILURE, None)
    assert await claimed_ids(jobs) == []
    clock.now += 7
    (second,) = await jobs.claim(QUEUE, worker="w1", limit=1, lease=LEASE)
    assert second.envelope.attempt == 2
    assert second.attempt_of.token > first.token
    assert second.losses == 0


async def test_a_stop_returns_a_job_without_an_attempt_and_without_a_loss(
    jobs: JobStore,
) -> None:
    key = await record_one(jobs)
    assert await jobs.end([ended(await claim_one(jobs), "queued")]) == ["queued"]
    found = await jobs.find(key)
    assert found is not None
    assert (found.state, found.attempt, found.losses) == ("queued", 0, 0)
    (claimed,) = await jobs.claim(QUEUE, worker="w2", limit=1, lease=LEASE)
    assert (claimed.envelope.attempt, claimed.losses) == (1, 0)


async def test_a_job_can_return_for_a_later_time(jobs: JobStore, clock: Clock) -> None:
    await record_one(jobs)
    await jobs.end([ended(await claim_one(jobs), "queued", run_at=clock.now + 3)])
    assert await claimed_ids(jobs) == []
    clock.now += 3
    assert await claimed_ids(jobs) == ["a1"]


async def test_an_attempt_leaves_headers_to_the_next_ones(jobs: JobStore) -> None:
    await record_one(jobs, headers={"own": "kept"})
    headers = {"own": "kept", "first-failed-at": 5}
    await jobs.end([ended(await claim_one(jobs), "retrying", headers=headers)])
    for _ in range(2):
        (claimed,) = await jobs.claim(QUEUE, worker="w1", limit=1, lease=LEASE)
        assert claimed.envelope.headers == headers
        await jobs.end([ended(claimed.attempt_of, "queued")])


@pytest.mark.parametrize("state", ["succeeded", "failed", "cancelled", "retrying", "queued"])
async def test_a_repeated_end_returns_what_was_written(jobs: JobStore, state: JobState) -> None:
    key = await record_one(jobs)
    end = ended(await claim_one(jobs), state)
    assert await jobs.end([end]) == [state]
    before = await jobs.find(key)
    assert await jobs.end([end]) == [state]
    assert await jobs.find(key) == before


async def test_a_repeated_end_returns_what_was_written_while_the_next_attempt_runs(
    jobs: JobStore,
) -> None:
    key = await record_one(jobs)
    end = ended(await claim_one(jobs), "retrying")
    await jobs.end([end])
    await claim_one(jobs, "w2")
    assert await jobs.end([end]) == ["retrying"]
    found = await jobs.find(key)
    assert found is not None
    assert (found.state, found.worker) == ("running", "w2")


async def test_each_end_of_a_batch_is_judged_alone(jobs: JobStore) -> None:
    await jobs.record([new_job(f"a{number}") for number in range(4)])
    claimed = await jobs.claim(QUEUE, worker="w1", limit=4, lease=LEASE)
    attempts = [each.attempt_of for each in claimed]
    states = await jobs.end(
        [
            ended(attempts[2], "succeeded"),
            ended(Attempt(attempts[0].key, 99), "succeeded"),
            ended(attempts[1], "retrying"),
            ended(attempts[0], "failed"),
        ]
    )
    assert states == ["succeeded", None, "retrying", "failed"]
    assert await jobs.renew(attempts, lease=LEASE) == [False, False, False, True]


async def test_nothing_happens_for_an_empty_batch(jobs: JobStore) -> None:
    assert await jobs.renew([], lease=LEASE) == []
    assert await jobs.end([]) == []


async def test_progress_is_stored_with_its_number_and_goes_on_in_the_next_attempt(
    jobs: JobStore,
) -> None:
    key = await record_one(jobs)
    attempt = await claim_one(jobs)
    assert await jobs.report(attempt, progress(1, 0.25)) is True
    assert await jobs.report(attempt, progress(4, 0.75)) is True
    assert await jobs.report(attempt, progress(3, 0.5)) is True  # it arrived late
    found = await jobs.find(key)
    assert found is not None
    assert found.progress == progress(4, 0.75)
    await jobs.end([ended(attempt, "retrying")])
    (claimed,) = await jobs.claim(QUEUE, worker="w1", limit=1, lease=LEASE)
    assert claimed.progress_number == 4
