"""The state of a job, as its submitter sees it. It has no payload."""

from dataclasses import dataclass

from bus.messaging.jobs.records import JobRecord
from bus.messaging.jobs.states import FINAL_STATES, JobState

__all__ = ["JobStatus", "status_of"]


@dataclass(frozen=True, slots=True, kw_only=True)
class JobStatus:
    """The state of a job. Times are in seconds since the epoch.

    It has no value of the payload, of the result or of a progress note.
    """

    id: str
    """Message id of the job."""
    type: str
    """Type of the job, `<name>.v<version>`."""
    submitter: str
    """Service that submitted the job."""
    state: JobState
    """`queued`, `running`, `retrying`, `succeeded`, `failed` or `cancelled`."""
    life: int
    """Number of the life, from 1. Each retry of a failed job by an operator begins the next one."""
    attempt: int
    """Number of the current or last attempt of this life. 0 before the first one."""
    submitted_at: float
    run_at: float
    """Earliest time of the next attempt."""
    started_at: float | None = None
    """Start of the current or last attempt."""
    ended_at: float | None = None
    progress: float | None = None
    """Completed part of the work, from 0 to 1. None if the job has reported none."""
    progress_number: int = 0
    """Number of the last progress update that the service has stored. 0 if it has stored none."""
    code: str | None = None
    """Code of the last error, such as `unavailable`. None if no attempt of this life has failed."""
    cancel_reason: str | None = None
    """Reason of the request to cancel the job. None if no such request exists."""
    cancelled_by: str | None = None
    """Service or operator that requested the cancellation. None if no such request exists."""

    @property
    def has_ended(self) -> bool:
        """True if the job has succeeded, failed or been cancelled."""
        return self.state in FINAL_STATES


def status_of(record: JobRecord) -> JobStatus:
    """Return the status of a stored job."""
    progress, cancel = record.progress, record.cancel
    return JobStatus(
        id=record.key.id,
        type=record.type,
        submitter=record.key.submitter,
        state=record.state,
        life=record.life,
        attempt=record.attempt,
        submitted_at=record.submitted_at,
        run_at=record.run_at,
        started_at=record.started_at,
        ended_at=record.ended_at,
        progress=None if progress is None else progress.progress,
        progress_number=0 if progress is None else progress.number,
        code=None if record.failure is None else record.failure.code,
        cancel_reason=None if cancel is None else cancel.reason,
        cancelled_by=None if cancel is None else cancel.by,
    )
