"""A job store in memory, for tests and for buses in memory."""

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Final

from bus.errors import FailedPrecondition
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
from bus.messaging.jobs.retention import PRUNED, can_have_copies
from bus.messaging.jobs.states import JobState, sources_of
from bus.storage.memory.job_rows import JobRow, new_row
from bus.storage.queue_signals import QueueSignals

__all__ = ["MemoryJobStore"]

Clock = Callable[[], float]
CLAIMABLE: Final = frozenset({"queued", "retrying"})


class MemoryJobStore:
    """Store of jobs in the memory of this process, which several instances can share.

    No method waits, so each one is atomic. Only `changed` waits.
    """

    def __init__(self, *, clock: Clock = time.time) -> None:
        """Create a store without jobs.

        Args:
            clock: Function that returns seconds since the epoch. Leases and due times use it.
        """
        self._clock = clock
        self._rows: dict[JobKey, JobRow] = {}
        self._active: dict[str, dict[JobKey, JobRow]] = {}
        """The jobs of each queue that have not ended, so that a claim does not read the others."""
        self._signals = QueueSignals()

    async def record(self, jobs: Sequence[NewJob]) -> Sequence[bool | OtherJob]:
        """Record jobs. Return False for a copy, and the other job for a key that it has."""
        return [self._record(job) for job in jobs]

    def _record(self, job: NewJob) -> bool | OtherJob:
        found = self._rows.get(job.key)
        if found is not None:
            other = OtherJob(found.record.type, found.record.queue)
            return False if other == job.place else other
        row = self._rows[job.key] = new_row(job, self._clock())
        self._note(row)
        return True

    async def claim(
        self, queue: str, *, worker: str, limit: int, lease: float, most_losses: int | None = None
    ) -> Sequence[ClaimedJob]:
        """Return jobs with an expired lease to the queue, and claim jobs that are due."""
        now = self._clock()
        for row in [*self._active.get(queue, {}).values()]:
            until = row.record.lease_until
            if row.record.state == "running" and until is not None and until <= now:
                row.lose_worker(now)
                self._note(row)
        due = [
            row
            for row in self._active.get(queue, {}).values()
            if row.record.state in CLAIMABLE
            and row.record.run_at <= now
            and (most_losses is None or row.record.losses <= most_losses)
        ]
        due.sort(key=lambda row: (-row.record.priority, row.record.run_at))
        return [row.claim(worker=worker, now=now, lease=lease) for row in due[:limit]]

    async def renew(
        self, attempts: Sequence[Attempt], *, lease: float
    ) -> Sequence[bool | CancelRequest]:
        """Renew leases. Return False for a stale token, or the cancel request, or True."""
        return [self._renew(attempt, lease) for attempt in attempts]

    def _renew(self, attempt: Attempt, lease: float) -> bool | CancelRequest:
        row = self._running(attempt)
        if row is None:
            return False
        row.renew(self._clock() + lease)
        return row.record.cancel or True

    async def cancel_requests(self, worker: str) -> Sequence[tuple[Attempt, CancelRequest]]:
        """Return the requests to cancel jobs that an instance runs now."""
        return [
            (Attempt(record.key, record.token), record.cancel)
            for rows in self._active.values()
            for record in (row.record for row in rows.values())
            if record.state == "running" and record.worker == worker and record.cancel is not None
        ]

    async def report(self, attempt: Attempt, progress: JobProgress) -> bool:
        """Store the progress of a running attempt. Return False if the token is stale."""
        row = self._running(attempt)
        if row is None:
            return False
        row.report(progress)
        return True

    async def end(self, ends: Sequence[AttemptEnd]) -> Sequence[JobState | None]:
        """End attempts. Return the state that was written, or None for a stale token."""
        return [self._end(end) for end in ends]

    def _end(self, end: AttemptEnd) -> JobState | None:
        row = self._running(end.attempt)
        if row is None:
            row = self._rows.get(end.attempt.key)
            return row.end_state if row and row.end_token == end.attempt.token else None
        state = row.end(end, self._clock())
        self._note(row)
        return state

    async def find(self, key: JobKey) -> JobRecord | None:
        """Return a job, or None."""
        row = self._rows.get(key)
        return None if row is None else row.record

    async def list(
        self, selection: JobFilter = ANY_JOB, *, limit: int = 100, after: JobRecord | None = None
    ) -> Sequence[JobRecord]:
        """Return jobs, the newest submission first, without their payloads and results."""
        rows = sorted(
            (row for row in self._rows.values() if selection.selects(row.record)),
            key=lambda row: _place(row.record),
            reverse=True,
        )
        if after is not None:
            rows = [row for row in rows if _place(row.record) < _place(after)]
        return [row.summary() for row in rows[:limit]]

    async def counts(self) -> Sequence[tuple[str, JobState, int, float | None]]:
        """Return (queue, state, number of jobs, earliest `run_at`) for each pair that occurs."""
        times: dict[tuple[str, JobState], list[float]] = {}
        for row in self._rows.values():
            record = row.record
            times.setdefault((record.queue, record.state), []).append(record.run_at)
        return [
            (queue, state, len(each), min(each) if state in sources_of("running") else None)
            for (queue, state), each in sorted(times.items())
        ]

    async def cancel(self, key: JobKey, request: CancelRequest) -> JobRecord | None:
        """Request the cancellation of a job, and return the job after that."""
        row = self._rows.get(key)
        if row is None:
            return None
        row.cancel(request, self._clock())
        self._note(row)
        return row.record

    async def retry(self, key: JobKey, *, by: str, reason: str) -> JobRecord | None:
        """Begin the next life of a failed job, and return the job after that."""
        row = self._rows.get(key)
        if row is None:
            return None
        if row.record.state == "failed":
            if row.record.is_pruned:
                raise FailedPrecondition(PRUNED.format(id=key.id))
            row.begin_life(by=by, reason=reason, now=self._clock())
            self._note(row)
        return row.record

    async def prune(
        self, state: JobState, *, ended_before: float, limit: int, now: float
    ) -> tuple[int, int]:
        """Remove payloads of jobs that ended before a time, and rows that can have no copies."""
        old = [
            row
            for row in self._rows.values()
            if row.record.state == state and (row.record.ended_at or 0) < ended_before
        ]
        pruned = [row for row in old if not row.record.is_pruned][:limit]
        for row in pruned:
            row.prune()
        deleted = [
            row for row in old if row.record.is_pruned and not can_have_copies(row.record, now)
        ][:limit]
        for row in deleted:
            del self._rows[row.record.key]
        return len(pruned), len(deleted)

    async def changed(self, queue: str, *, timeout: float) -> bool:
        """Wait until a job of a queue has changed. Return False after `timeout` seconds."""
        try:
            async with asyncio.timeout(timeout):
                await self._signals.wait(queue)
        except TimeoutError:
            return False
        return True

    def _running(self, attempt: Attempt) -> JobRow | None:
        """Return the row of an attempt, or None if the attempt is stale."""
        row = self._rows.get(attempt.key)
        return row if row is not None and row.runs_with(attempt.token) else None

    def _note(self, row: JobRow) -> None:
        """Update the index after a change of the state, and wake the workers of the queue."""
        record = row.record
        active = self._active.setdefault(record.queue, {})
        if record.has_ended:
            active.pop(record.key, None)
        else:
            active[record.key] = row
            self._signals.notify(record.queue)


def _place(record: JobRecord) -> tuple[float, str, str]:
    """Return the place of a job in a list."""
    return (record.submitted_at, *record.key)
