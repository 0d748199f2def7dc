"""The rows of the job store in memory, and the moves between their states."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from bus.messaging.jobs.next_life import in_life, next_expires
from bus.messaging.jobs.records import (
    Attempt,
    AttemptEnd,
    CancelRequest,
    ClaimedJob,
    JobLife,
    JobProgress,
    JobRecord,
    NewJob,
)
from bus.messaging.jobs.states import FINAL_STATES, MOVES, JobState

__all__ = ["JobRow", "new_row"]


@dataclass(slots=True)
class JobRow:
    """One job, with the values that no record shows."""

    record: JobRecord
    end_token: int = 0
    """Token of the last attempt that wrote its end."""
    end_state: JobState | None = None
    """State that this attempt has written."""
    headers: Mapping[str, str | int] | None = None
    """Headers of the next attempt, in place of those of the message."""
    progress_number: int = 0

    def move(self, state: JobState, **changes: Any) -> None:
        """Change the state, and other values.

        Raises:
            AssertionError: The table of moves forbids the change.
        """
        if state not in MOVES[self.record.state]:
            raise AssertionError(f"a job cannot move from {self.record.state} to {state}.")
        self.record = replace(self.record, state=state, **changes)

    def runs_with(self, token: int) -> bool:
        """Return True if the attempt with this token runs."""
        return self.record.state == "running" and self.record.token == token

    def claim(self, *, worker: str, now: float, lease: float) -> ClaimedJob:
        """Begin an attempt, and return it."""
        before = self.record
        self.move(
            "running",
            attempt=before.attempt + 1,
            token=before.token + 1,
            started_at=now,
            worker=worker,
            lease_until=now + lease,
        )
        record = self.record
        if record.envelope is None:
            raise AssertionError("a job that has not ended must have its envelope.")
        headers = record.envelope.headers if self.headers is None else self.headers
        envelope = record.envelope.replace(attempt=record.attempt, headers=headers)
        return ClaimedJob(
            attempt_of=Attempt(record.key, record.token),
            envelope=in_life(envelope, record.life, record.expires),
            queue=record.queue,
            life=record.life,
            losses=record.losses,
            progress_number=self.progress_number,
        )

    def renew(self, lease_until: float) -> None:
        """Replace the end of the lease."""
        self.record = replace(self.record, lease_until=lease_until)

    def lose_worker(self, now: float) -> None:
        """Return the job of a lost worker to the queue, or cancel it."""
        self._wait_again(now, "queued", losses=self.record.losses + 1)

    def _wait_again(self, now: float, state: JobState, **changes: Any) -> JobState:
        """Return a running job to a state in which it waits, or cancel it."""
        if state == "queued":  # the interrupted attempt does not count
            changes["attempt"] = self.record.attempt - 1
        if self.record.cancel is not None:
            state, changes = "cancelled", {**changes, "ended_at": now}
        self.move(state, lease_until=None, **changes)
        return state

    def report(self, progress: JobProgress) -> None:
        """Replace the stored progress, unless it is later."""
        if progress.number > self.progress_number:
            self.progress_number = progress.number
            self.record = replace(self.record, progress=progress)

    def end(self, end: AttemptEnd, now: float) -> JobState:
        """End the running attempt, and return the state after that."""
        changes: dict[str, Any] = {}
        if end.state != "queued":
            changes["failure"] = end.failure
        if end.state in FINAL_STATES:
            state: JobState = end.state
            if self.record.cancel is not None and state == "failed":
                state = "cancelled"
            self.move(state, lease_until=None, ended_at=now, result=end.result, **changes)
        else:
            if end.run_at is not None:
                changes["run_at"] = end.run_at
            elif end.state == "retrying":
                changes["run_at"] = now
            if end.headers is not None:
                self.headers = end.headers
            state = self._wait_again(now, end.state, **changes)
            if state == "cancelled":
                self.record = replace(self.record, result=end.result)
        self.end_token, self.end_state = end.attempt.token, state
        return state

    def cancel(self, request: CancelRequest, now: float) -> None:
        """Cancel a job that waits, and store the request for a running one."""
        if self.record.has_ended:
            return
        if self.record.cancel is None:
            self.record = replace(self.record, cancel=request)
        if self.record.state != "running":
            self.move("cancelled", ended_at=now)

    def begin_life(self, *, by: str, reason: str, now: float) -> None:
        """Begin the next life of a failed job."""
        before = self.record
        life = JobLife(life=before.life + 1, by=by, reason=reason, at=now, failure=before.failure)
        self.headers = None
        self.move(
            "queued",
            life=life.life,
            lives=(*before.lives, life),
            token=before.token + 1,
            attempt=0,
            losses=0,
            run_at=now,
            expires=next_expires(before, now),
            started_at=None,
            ended_at=None,
            failure=None,
            result=None,
            progress=None,
            cancel=None,
        )

    def prune(self) -> None:
        """Remove the payload, the result and the progress."""
        record = self.record
        progress = None if record.progress is None else replace(record.progress, update=None)
        self.record = replace(record, envelope=None, result=None, progress=progress, is_pruned=True)

    def summary(self) -> JobRecord:
        """Return the record without its payloads."""
        record = self.record
        progress = None if record.progress is None else replace(record.progress, update=None)
        return replace(record, envelope=None, result=None, progress=progress)


def new_row(job: NewJob, now: float) -> JobRow:
    """Return the row of a job that is recorded now."""
    envelope = job.envelope
    return JobRow(
        JobRecord(
            key=job.key,
            type=envelope.type,
            queue=job.queue,
            state="queued",
            life=1,
            attempt=job.earlier_attempts,
            losses=0,
            token=0,
            priority=job.priority,
            correlation_id=envelope.correlation_id or envelope.id,
            submitted_at=job.submitted_at(now),
            recorded_at=now,
            run_at=now if job.run_at is None else job.run_at,
            expires=job.expires,
            envelope=envelope.replace(limits=None),
        )
    )
