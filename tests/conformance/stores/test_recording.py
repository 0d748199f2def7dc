"""The way of a job into a store."""

import asyncio

import pytest

from bus.messaging.jobs.records import JobKey, OtherJob
from bus.messaging.ports.job_store import JobStore
from tests.conformance.stores.made import (
    LEASE,
    QUEUE,
    Clock,
    claim_one,
    ended,
    envelope,
    new_job,
    record_one,
    update,
)

TEXTS = ["bücher-📚", "a\\0b", "a\0b", "a\\", "%_'\"", "x" * 255]
MEBIBYTE = 1024 * 1024


async def test_a_recorded_job_is_queued_with_everything_that_its_message_tells(
    jobs: JobStore, clock: Clock
) -> None:
    job = new_job(timestamp=1_700_000_000, expires=1_900_000_000_500, priority=3)
    await jobs.record([job])
    found = await jobs.find(job.key)
    assert found is not None
    assert (found.state, found.life, found.attempt, found.losses) == ("queued", 1, 0, 0)
    assert (found.type, found.queue, found.correlation_id) == (QUEUE, QUEUE, "c1")
    assert (found.submitted_at, found.expires) == (1_700_000_000.0, 1_900_000_000.5)
    assert (found.recorded_at, found.priority) == (clock.now, 3)
    assert found.run_at == pytest.approx(clock.now, abs=0.001)
    assert found.envelope == job.envelope
    assert (found.cancel, found.failure, found.progress, found.result) == (None,) * 4


async def test_a_job_without_a_time_of_submission_was_submitted_when_it_was_recorded(
    jobs: JobStore, clock: Clock
) -> None:
    key = await record_one(jobs)
    found = await jobs.find(key)
    assert found is not None
    assert found.submitted_at == clock.now


async def test_a_known_key_is_not_recorded_again(jobs: JobStore) -> None:
    key = await record_one(jobs, body=b"first")
    attempt = await claim_one(jobs)
    assert await jobs.record([new_job(body=b"second"), new_job("a2")]) == [False, True]
    found = await jobs.find(key)
    assert found is not None
    assert found.envelope is not None
    assert (found.state, found.envelope.body) == ("running", b"first")
    assert await jobs.end([ended(attempt, "succeeded")]) == ["succeeded"]
    assert await jobs.record([new_job()]) == [False]


async def test_a_key_that_is_twice_in_a_batch_is_recorded_once(jobs: JobStore) -> None:
    assert await jobs.record([new_job(), new_job(), new_job("a2")]) == [True, False, True]


@pytest.mark.parametrize("other", [{"queue": "library.copy.v1"}, {"type": "library.copy.v1"}])
async def test_a_key_of_a_job_with_another_queue_or_type_is_no_copy(
    jobs: JobStore, other: dict[str, str]
) -> None:
    first = OtherJob(QUEUE, QUEUE)
    await record_one(jobs, body=b"first")
    assert await jobs.record([new_job(**other), new_job(), new_job("a2")]) == [first, False, True]
    # The same in one batch.
    second = OtherJob(other.get("type", QUEUE), other.get("queue", QUEUE))
    assert await jobs.record([new_job("a3"), new_job("a3", **other)]) in (
        [True, first],
        [second, True],  # the database chooses
    )
    found = await jobs.find(JobKey("reader", "a1"))
    assert found is not None
    assert (found.envelope, found.queue) == (envelope(body=b"first"), QUEUE)


async def test_two_processes_that_record_the_same_keys_record_each_once(
    jobs: JobStore, other: JobStore
) -> None:
    batch = [new_job(f"a{number}") for number in range(50)]
    first, second = await asyncio.gather(jobs.record(batch), other.record(batch[::-1]))
    assert [{a, b} for a, b in zip(first, reversed(second), strict=True)] == [{True, False}] * 50


async def test_nothing_is_recorded_of_an_empty_batch(jobs: JobStore) -> None:
    assert await jobs.record([]) == []
    assert await jobs.list() == []


async def test_two_submitters_may_use_the_same_id(jobs: JobStore) -> None:
    assert await jobs.record([new_job(), new_job(source="archive")]) == [True, True]
    found = await jobs.find(JobKey("archive", "a1"))
    assert found is not None
    assert found.key.submitter == "archive"
    assert await jobs.find(JobKey("library", "a1")) is None


@pytest.mark.parametrize("text", TEXTS, ids=ascii)
async def test_each_text_is_an_id_of_its_own(jobs: JobStore, text: str) -> None:
    job = new_job(text, correlation_id=f"{text}!", headers={"note": "ü"})
    assert await jobs.record([job, new_job("a")]) == [True, True]
    found = await jobs.find(job.key)
    assert found is not None
    assert (found.key, found.correlation_id) == (job.key, f"{text}!")
    claimed = await jobs.claim(QUEUE, worker=text, limit=1, lease=LEASE)
    assert [each.attempt_of.key for each in claimed] == [job.key]
    assert await jobs.end([ended(claimed[0].attempt_of, "failed")]) == ["failed"]


async def test_a_body_of_16_mib_is_stored_and_returned_unchanged(jobs: JobStore) -> None:
    body = bytes(range(256)) * (16 * MEBIBYTE // 256)
    key = await record_one(jobs, body=body)
    attempt = await claim_one(jobs)
    assert await jobs.end([ended(attempt, "succeeded", result=update(body=body))]) == ["succeeded"]
    found = await jobs.find(key)
    assert found is not None
    assert found.envelope == envelope(body=body)
    assert found.result == update(body=body)


async def test_a_retry_copy_of_a_service_without_a_store_keeps_its_attempts(
    jobs: JobStore,
) -> None:
    await record_one(jobs, attempt=3)
    (claimed,) = await jobs.claim(QUEUE, worker="w1", limit=1, lease=LEASE)
    assert claimed.envelope.attempt == 3
