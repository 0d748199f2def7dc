"""Jobs, ends and a clock for the tests of stores."""

from typing import Any

from bus.messaging.envelope import Envelope
from bus.messaging.jobs.records import (
    Attempt,
    AttemptEnd,
    CancelRequest,
    JobFailure,
    JobKey,
    JobProgress,
    NewJob,
)
from bus.messaging.jobs.states import JobState
from bus.messaging.ports.job_store import JobStore

QUEUE = "library.scan.v1"
LEASE = 30.0
FAILURE = JobFailure(code="internal", reason="KeyError", location="scan.py:7 in scan")


class Clock:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


def envelope(id_: str = "a1", **attributes: Any) -> Envelope:
    """Return the message of a job."""
    given = {
        "type": "library.scan.v1",
        "role": "job",
        "source": "reader",
        "body": b'{"book": 7}',
        "correlation_id": "c1",
    }
    return Envelope(id=id_, **{**given, **attributes})


def new_job(id_: str = "a1", *, queue: str = QUEUE, **attributes: Any) -> NewJob:
    """Return a job to record. The attributes are those of `NewJob` or of its envelope."""
    own = {name: attributes.pop(name) for name in ("run_at", "priority") if name in attributes}
    message = envelope(id_, **attributes)
    return NewJob(key=JobKey(message.source, id_), queue=queue, envelope=message, **own)


def update(id_: str = "u1", body: bytes = b"{}") -> Envelope:
    """Return an update, as it is sent to the submitter."""
    return Envelope(
        id=id_, type="library.scan.v1.reply", role="update", source="library", body=body
    )


def progress(number: int, part: float = 0.5) -> JobProgress:
    return JobProgress(number=number, update=update(f"p{number}"), progress=part)


def ended(attempt: Attempt, state: JobState, **values: Any) -> AttemptEnd:
    """Return the end of an attempt. A failure has an error."""
    if state in {"failed", "retrying"}:
        values.setdefault("failure", FAILURE)
    return AttemptEnd(attempt=attempt, state=state, **values)


def request(by: str = "reader", at: float = 5.0) -> CancelRequest:
    return CancelRequest(by=by, reason="not needed", at=at)


async def claim_one(store: JobStore, worker: str = "w1") -> Attempt:
    """Claim the only job that is due."""
    (claimed,) = await store.claim(QUEUE, worker=worker, limit=1, lease=LEASE)
    return claimed.attempt_of


async def record_one(store: JobStore, **attributes: Any) -> JobKey:
    """Record a job, and return its key."""
    job = new_job(**attributes)
    assert await store.record([job]) == [True]
    return job.key


async def run_one(store: JobStore, state: JobState, **attributes: Any) -> JobKey:
    """Record a job, and bring it to a state."""
    key = await record_one(store, **attributes)
    if state == "queued":
        return key
    attempt = await claim_one(store)
    if state != "running":
        assert await store.end([ended(attempt, state)]) == [state]
    return key
