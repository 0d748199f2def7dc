"""The port of the store of durable jobs. A row is the job once it is recorded."""

from collections.abc import Sequence
from typing import Protocol

from bus.messaging.jobs.records import (
    ANY_JOB,
    Attempt,
    AttemptEnd,
    CancelRequest,
    ClaimedJob,
    JobFilter,
    JobKey,
    JobProgress,
    JobRecord,
    NewJob,
    OtherJob,
)
from bus.messaging.jobs.states import JobState

__all__ = ["JobStore"]


class JobStore(Protocol):
    """Store of jobs. Each method is one transaction, and is atomic for each job.

    Every write of a worker names its attempt. A write with an old token has no effect, and the
    store returns that it was stale.
    """

    # --- The way in ---

    async def record(self, jobs: Sequence[NewJob]) -> Sequence[bool | OtherJob]:
        """Record jobs in the state `queued`. Return after the commit.

        Returns:
            For each job, True if it is new, and False if it is a copy of a recorded job. If its
            key is that of a job with another type or queue, this other job. An existing row does
            not change.
        """
        ...

    # --- Attempts ---

    async def claim(
        self, queue: str, *, worker: str, limit: int, lease: float, most_losses: int | None = None
    ) -> Sequence[ClaimedJob]:
        """Claim jobs of a queue that are due, and set them to `running` with a new token.

        First, jobs of this queue with an expired lease return to `queued` with one more loss, or
        become `cancelled` if they have a cancel request. Then the jobs with the highest priority
        are claimed, and among these the earliest `run_at`. Two workers never claim the same job.

        Args:
            queue: Work queue.
            worker: Name of the instance.
            limit: Maximum number of jobs, at least 1.
            lease: Seconds until the lease expires.
            most_losses: If set, jobs with more losses are not claimed.
        """
        ...

    async def renew(
        self, attempts: Sequence[Attempt], *, lease: float
    ) -> Sequence[bool | CancelRequest]:
        """Renew the leases of running attempts.

        Returns:
            For each attempt: False if its token is stale, its cancel request, or True.
        """
        ...

    async def cancel_requests(self, worker: str) -> Sequence[tuple[Attempt, CancelRequest]]:
        """Return the requests to cancel jobs that an instance runs now. The call only reads."""
        ...

    async def report(self, attempt: Attempt, progress: JobProgress) -> bool:
        """Store the progress of a running attempt. Return False if the token is stale."""
        ...

    async def end(self, ends: Sequence[AttemptEnd]) -> Sequence[JobState | None]:
        """End attempts. Return the state that was written, or None for a stale token.

        A repeated end of an attempt that was written before returns the state that was written. It
        can return None if a later attempt of the same job has ended since.
        """
        ...

    # --- Questions and orders ---

    async def find(self, key: JobKey) -> JobRecord | None:
        """Return a job, or None if it was never recorded, or was removed completely."""
        ...

    async def list(
        self, selection: JobFilter = ANY_JOB, *, limit: int = 100, after: JobRecord | None = None
    ) -> Sequence[JobRecord]:
        """Return jobs, the newest submission first, without their payloads and results.

        Args:
            selection: Jobs to return.
            limit: Maximum number, at least 1.
            after: Last job of the page before.
        """
        ...

    async def counts(self) -> Sequence[tuple[str, JobState, int, float | None]]:
        """Return (queue, state, number of jobs, earliest `run_at`) for each pair that occurs.

        The time is None for a state in which no job waits.
        """
        ...

    async def cancel(self, key: JobKey, request: CancelRequest) -> JobRecord | None:
        """Request the cancellation of a job, and return the job after that.

        A job that waits becomes `cancelled`. A running job keeps its state and gets the request. A
        job that has ended does not change. A second request does not replace the first.
        """
        ...

    async def retry(self, key: JobKey, *, by: str, reason: str) -> JobRecord | None:
        """Begin the next life of a failed job, and return the job after that.

        A job in another state does not change.

        Raises:
            FailedPrecondition: Retention has removed the payload of the job.
        """
        ...

    # --- Retention ---

    async def prune(
        self, state: JobState, *, ended_before: float, limit: int, now: float
    ) -> tuple[int, int]:
        """Remove payload and result of jobs that ended in a state before a time.

        Id and final state stay until no copy of the message can be alive: until `expires`, and
        31 days for each possible extension, have passed.

        Args:
            state: Final state.
            ended_before: Time in seconds since the epoch.
            limit: Maximum number of jobs in this batch.
            now: Present time in seconds since the epoch.

        Returns:
            Number of jobs that lost their payload, and number of rows that were deleted.
        """
        ...

    async def changed(self, queue: str, *, timeout: float) -> bool:
        """Wait until a job of a queue may be due, or its cancellation may be requested.

        Returns:
            True after a notification. False after `timeout` seconds, or if the store has none.
        """
        ...
