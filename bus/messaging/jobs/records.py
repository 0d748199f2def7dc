"""Values that a job store accepts and returns."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from bus.messaging.envelope import Envelope
from bus.messaging.jobs.states import FINAL_STATES, JobState
from bus.messaging.sent_time import sent_time

__all__ = [
    "ANY_JOB",
    "Attempt",
    "AttemptEnd",
    "CancelRequest",
    "ClaimedJob",
    "JobFailure",
    "JobFilter",
    "JobKey",
    "JobLife",
    "JobProgress",
    "JobRecord",
    "NewJob",
    "OtherJob",
]


class JobKey(NamedTuple):
    """Identity of a job. An id alone is not an identity: two submitters may use the same id."""

    submitter: str
    """Service that submitted the job."""
    id: str
    """Message id of the job."""


class OtherJob(NamedTuple):
    """The type and the work queue of a recorded job, which has the key of another new job."""

    type: str
    queue: str


@dataclass(frozen=True, slots=True, kw_only=True)
class NewJob:
    """A job to record."""

    key: JobKey
    queue: str
    """Work queue, which identifies the handler."""
    envelope: Envelope
    """Message as received. The payload of an encrypted contract stays encrypted."""
    run_at: float | None = None
    """Earliest time of the first attempt, in seconds since the epoch. None: now."""
    priority: int = 0
    """Jobs of a queue with a higher priority start first."""

    def submitted_at(self, now: float) -> float:
        """Return when the job was first sent, or `now` if its message does not have the time."""
        milliseconds = sent_time(self.envelope)
        return milliseconds / 1000 if milliseconds else float(self.envelope.timestamp or now)

    @property
    def place(self) -> OtherJob:
        """The type and the work queue, which all copies of a job have in common."""
        return OtherJob(self.envelope.type, self.queue)

    @property
    def earlier_attempts(self) -> int:
        """Number of attempts that failed before the service had a store."""
        return self.envelope.attempt - 1

    @property
    def expires(self) -> float | None:
        """Time when the job expires, in seconds since the epoch. None if it does not expire."""
        return None if self.envelope.expires is None else self.envelope.expires / 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class CancelRequest:
    """A request to cancel a job."""

    by: str
    """Service or operator that requests it."""
    reason: str
    """Reason, at most 200 characters. It is a text for operators, without data of the message."""
    at: float
    """Time of the request, in seconds since the epoch."""


class Attempt(NamedTuple):
    """One attempt of a job, as its worker names it in each write."""

    key: JobKey
    token: int
    """Fencing token: the number of the claim. Each claim and each new life has a higher token."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimedJob:
    """A job that this worker has claimed."""

    attempt_of: Attempt
    envelope: Envelope
    """Message as received, with `attempt` set to the number of this attempt.

    If an earlier attempt of this life ended with headers, the message has these headers.
    """
    queue: str
    life: int
    losses: int
    """Number of earlier attempts whose worker was lost, in this life."""
    progress_number: int = 0
    """Number of the last stored progress. The numbers of this attempt continue after it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobFailure:
    """The error of the last attempt, without values of the payload."""

    code: str
    reason: str
    """Class name of the error, with its text if the text is safe. At most 1024 characters."""
    location: str | None = None
    """File, line and function that raised the error."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptEnd:
    """The end of an attempt, which a worker writes with its token.

    If the job has a cancel request, a store writes `cancelled` instead of each state except
    `succeeded`.
    """

    attempt: Attempt
    state: JobState
    """Next state: `succeeded`, `failed`, `cancelled`, `retrying`, or `queued` for a job that
    returns without an attempt and without a loss."""
    run_at: float | None = None
    """Earliest time of the next attempt. Only `retrying` and `queued` have it."""
    result: Envelope | None = None
    """Update with the result or the error, as it is sent to the submitter. An encrypted contract
    has an encrypted result."""
    failure: JobFailure | None = None
    headers: Mapping[str, str | int] | None = None
    """Headers of the message at its next attempt, such as `first-failed-at`. None: unchanged.

    Only `retrying` and `queued` have them. A store keeps them beside the message, and the next life
    begins without them.
    """


@dataclass(frozen=True, slots=True, kw_only=True)
class JobProgress:
    """The last stored progress of a job."""

    number: int
    """Number of the update within the job, from 1. Updates that were not stored leave gaps."""
    update: Envelope | None
    """Update as it is sent to the submitter. An encrypted contract has an encrypted update.

    None in a list of jobs, and after retention.
    """
    progress: float | None = None
    """Completed part of the work, from 0 to 1. The note is only in `update`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobLife:
    """The beginning of a life after the first one: a recorded retry of a failed job."""

    life: int
    by: str
    reason: str
    at: float
    failure: JobFailure | None = None
    """Error that ended the life before."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobRecord:
    """A job as the store knows it. Times are in seconds since the epoch."""

    key: JobKey
    type: str
    """Type of the job, `<name>.v<version>`."""
    queue: str
    state: JobState
    life: int
    attempt: int
    """Number of the current or last attempt of this life. 0 before the first one.

    An attempt that a stop or the loss of its worker interrupted does not count.
    """
    losses: int
    """Number of attempts of this life whose worker was lost."""
    token: int
    priority: int
    correlation_id: str
    submitted_at: float
    recorded_at: float
    run_at: float
    """Earliest time of the next attempt."""
    expires: float | None = None
    started_at: float | None = None
    """Start of the current or last attempt."""
    ended_at: float | None = None
    worker: str | None = None
    """Instance with the lease, or the last one that had it."""
    lease_until: float | None = None
    progress: JobProgress | None = None
    cancel: CancelRequest | None = None
    failure: JobFailure | None = None
    envelope: Envelope | None = None
    """Message as received. None after retention has removed it."""
    result: Envelope | None = None
    """Update with the result or the error. None before the end, and after retention."""
    is_pruned: bool = False
    """True after retention has removed payload and result."""
    lives: tuple[JobLife, ...] = ()

    @property
    def has_ended(self) -> bool:
        """True if the job has succeeded, failed or been cancelled."""
        return self.state in FINAL_STATES


@dataclass(frozen=True, slots=True, kw_only=True)
class JobFilter:
    """A selection of jobs. Each value that is set must match."""

    states: tuple[JobState, ...] = ()
    types: tuple[str, ...] = ()
    queues: tuple[str, ...] = ()
    codes: tuple[str, ...] = ()
    """Codes of the last error."""
    submitter: str | None = None
    ids: tuple[str, ...] = ()
    """Ids, or their first characters."""
    has_whole_ids: bool = False
    """True if a job that only begins with one of `ids` is not selected."""
    correlation_id: str | None = None
    submitted_before: float | None = None
    submitted_after: float | None = None

    def selects(self, record: JobRecord) -> bool:
        """Return True if the selection contains a job."""
        key, failure = record.key, record.failure
        return (
            _is_one_of(record.state, self.states)
            and _is_one_of(record.type, self.types)
            and _is_one_of(record.queue, self.queues)
            and (not self.codes or (failure is not None and failure.code in self.codes))
            and self._selects_id(key.id)
            and self.submitter in {None, key.submitter}
            and self.correlation_id in {None, record.correlation_id}
            and (self.submitted_before is None or record.submitted_at < self.submitted_before)
            and (self.submitted_after is None or record.submitted_at > self.submitted_after)
        )

    def _selects_id(self, id_: str) -> bool:
        if self.has_whole_ids:
            return _is_one_of(id_, self.ids)
        return not self.ids or id_.startswith(self.ids)


def _is_one_of(value: str, values: tuple[str, ...]) -> bool:
    return not values or value in values


ANY_JOB = JobFilter()
