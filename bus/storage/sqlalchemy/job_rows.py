"""Conversions between the rows of the table of jobs and the records of the port."""

import json
from typing import Any

from sqlalchemy import Row, RowMapping

from bus.messaging.envelope import Envelope, from_stored_bytes, to_stored_bytes
from bus.messaging.jobs.next_life import in_life
from bus.messaging.jobs.records import (
    Attempt,
    AttemptEnd,
    CancelRequest,
    ClaimedJob,
    JobFailure,
    JobKey,
    JobLife,
    JobProgress,
    JobRecord,
    NewJob,
    OtherJob,
)
from bus.storage.sqlalchemy.texts import from_text, to_text, to_text_or_none

__all__ = [
    "attempt_values",
    "cancel_request",
    "claimed_job",
    "end_values",
    "job_key",
    "job_record",
    "lives_text",
    "new_values",
    "place_of",
    "stored_key",
]


def new_values(job: NewJob) -> dict[str, Any]:
    """Return the values of a new job. `submitted_at` and `run_at` are None for the present time."""
    envelope = job.envelope
    return {
        "id": to_text(job.key.id),
        "submitter": to_text(job.key.submitter),
        "type": to_text(envelope.type),
        "queue": job.queue,
        "attempt": job.earlier_attempts,
        "priority": job.priority,
        "correlation_id": to_text(envelope.correlation_id or envelope.id),
        "submitted_at": job.submitted_at(0) or None,
        "run_at": job.run_at,
        "expires": job.expires,
        "message": to_stored_bytes(envelope),
    }


def stored_key(job: NewJob) -> tuple[str, str]:
    """Return (id, submitter) of a job, as its row has them."""
    return to_text(job.key.id), to_text(job.key.submitter)


def place_of(row: Row[Any]) -> OtherJob:
    """Return the type and the queue of a row."""
    return OtherJob(from_text(row.type), row.queue)


def attempt_values(attempt: Attempt) -> dict[str, Any]:
    """Return the values that identify an attempt."""
    return {
        "id": to_text(attempt.key.id),
        "submitter": to_text(attempt.key.submitter),
        "token": attempt.token,
    }


def end_values(end: AttemptEnd) -> dict[str, Any]:
    """Return the values of the end of an attempt."""
    failure = end.failure
    return {
        **attempt_values(end.attempt),
        "state": end.state,
        "run_at": end.run_at,
        "result": None if end.result is None else to_stored_bytes(end.result),
        "failure_code": failure and to_text(failure.code),
        "failure_reason": failure and to_text(failure.reason),
        "failure_location": failure and to_text_or_none(failure.location),
        "headers": None if end.headers is None else json.dumps(dict(end.headers)),
    }


def claimed_job(row: Row[Any]) -> ClaimedJob:
    """Return the job of a claimed row.

    Raises:
        Undecodable: The message cannot be read.
    """
    envelope = from_stored_bytes(row.message).replace(attempt=row.attempt)
    if row.headers is not None:
        envelope = envelope.replace(headers=json.loads(row.headers))
    return ClaimedJob(
        attempt_of=Attempt(job_key(row), row.token),
        envelope=in_life(envelope, row.life, row.expires),
        queue=row.queue,
        life=row.life,
        losses=row.losses,
        progress_number=row.progress_number,
    )


def job_record(row: Row[Any]) -> JobRecord:
    """Return the record of a row. A row of a list has no columns with payloads."""
    values = row._mapping  # noqa: SLF001 - the documented name of SQLAlchemy
    return JobRecord(
        key=job_key(row),
        type=from_text(row.type),
        queue=row.queue,
        state=row.state,
        life=row.life,
        attempt=row.attempt,
        losses=row.losses,
        token=row.token,
        priority=row.priority,
        correlation_id=from_text(row.correlation_id),
        submitted_at=row.submitted_at,
        recorded_at=row.recorded_at,
        run_at=row.run_at,
        expires=row.expires,
        started_at=row.started_at,
        ended_at=row.ended_at,
        worker=row.worker and from_text(row.worker),
        lease_until=row.lease_until,
        progress=_progress(row, values),
        cancel=cancel_request(row),
        failure=_failure(row),
        envelope=_envelope(values.get("message")),
        result=_envelope(values.get("result")),
        is_pruned=bool(row.is_pruned),
        lives=_lives(row.lives),
    )


def cancel_request(row: Row[Any]) -> CancelRequest | None:
    """Return the cancel request of a row, or None."""
    if row.cancel_at is None:
        return None
    return CancelRequest(
        by=from_text(row.cancel_by), reason=from_text(row.cancel_reason), at=row.cancel_at
    )


def lives_text(lives: tuple[JobLife, ...]) -> str:
    """Return lives as JSON."""
    return json.dumps(
        [
            {
                "life": life.life,
                "by": life.by,
                "reason": life.reason,
                "at": life.at,
                "failure": life.failure
                and [life.failure.code, life.failure.reason, life.failure.location],
            }
            for life in lives
        ]
    )


def _lives(text: str | None) -> tuple[JobLife, ...]:
    if text is None:
        return ()
    return tuple(
        JobLife(**{**life, "failure": life["failure"] and _failure_of(*life["failure"])})
        for life in json.loads(text)
    )


def _failure_of(code: str, reason: str, location: str | None) -> JobFailure:
    return JobFailure(code=code, reason=reason, location=location)


def job_key(row: Row[Any]) -> JobKey:
    """Return the key of a row."""
    return JobKey(from_text(row.submitter), from_text(row.id))


def _progress(row: Row[Any], values: RowMapping) -> JobProgress | None:
    if not row.has_progress:
        return None
    update = _envelope(values.get("progress_update"))
    return JobProgress(number=row.progress_number, update=update, progress=row.progress)


def _failure(row: Row[Any]) -> JobFailure | None:
    if row.failure_code is None:
        return None
    location = row.failure_location and from_text(row.failure_location)
    return _failure_of(from_text(row.failure_code), from_text(row.failure_reason), location)


def _envelope(stored: bytes | None) -> Envelope | None:
    return None if stored is None else from_stored_bytes(stored)
