"""The job store in a database.

A job is one row. Each write of a worker names its attempt by a token, and finds no row if the job
was handed over. So the database refuses late writes, and no clock decides.
"""

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, Final

from sqlalchemy import Row, text
from sqlalchemy.ext.asyncio import AsyncConnection

from bus.errors import DataLoss, Unavailable, Undecodable
from bus.messaging.jobs.records import (
    ANY_JOB,
    Attempt,
    AttemptEnd,
    CancelRequest,
    ClaimedJob,
    JobFailure,
    JobFilter,
    JobKey,
    JobProgress,
    JobRecord,
    NewJob,
    OtherJob,
)
from bus.messaging.jobs.states import JobState
from bus.storage.sqlalchemy import job_orders
from bus.storage.sqlalchemy.database import Database
from bus.storage.sqlalchemy.job_batches import JobBatches, OrderedClaim
from bus.storage.sqlalchemy.job_rows import cancel_request, claimed_job, job_record, stored_key
from bus.storage.sqlalchemy.job_selection import COUNT, list_jobs
from bus.storage.sqlalchemy.notifications import CHANNEL, NO_NOTIFICATIONS, Notifications
from bus.storage.sqlalchemy.postgresql_jobs import PostgresqlJobs
from bus.storage.sqlalchemy.present import present_time
from bus.storage.sqlalchemy.sqlite_jobs import SqliteJobs
from bus.storage.sqlalchemy.texts import from_text, to_text

__all__ = ["SqlJobStore"]

UNLIMITED: Final = 2**62
_NOTIFY: Final = text("SELECT pg_notify(:channel, :queue)")
_UNREADABLE: Final = JobFailure(
    code=DataLoss.code, reason="the stored message cannot be read. Restore the store's backup."
)


class SqlJobStore:
    """Store of jobs in PostgreSQL or SQLite.

    Raises:
        Unavailable: The database cannot be reached. Each method can raise it.
    """

    def __init__(
        self,
        database: Database,
        *,
        clock: Callable[[], float] | None = None,
        notifications: Notifications = NO_NOTIFICATIONS,
    ) -> None:
        """Create the store. It connects at its first use.

        Args:
            database: Database with the tables.
            clock: Function that returns seconds since the epoch. None: the clock of PostgreSQL,
                which all instances share, or of this machine for SQLite.
            notifications: Source of `changed`.
        """
        self._database = database
        self._clock = clock
        self._notifications = notifications
        self._batches: JobBatches = SqliteJobs() if database.is_sqlite else PostgresqlJobs()

    def _now(self) -> float | None:
        """Return the present time, or None for the clock of the database."""
        return None if self._clock is None else self._clock()

    async def record(self, jobs: Sequence[NewJob]) -> Sequence[bool | OtherJob]:
        """Record jobs. Return False for a copy, and the other job for a key that it has."""
        if not jobs:
            return []
        new = await self._database.write(
            lambda connection: self._batches.record(connection, jobs, self._now()), is_single=True
        )
        known = {key for job in jobs if (key := stored_key(job)) not in new}
        places = dict(new)
        if known:
            places |= await self._database.read(
                lambda connection: job_orders.read_places(connection, known)
            )
        results: list[bool | OtherJob] = []
        for job in jobs:
            key = stored_key(job)
            place = places.get(key, job.place)  # retention can have removed the row of a copy
            is_copy = place == job.place
            # The same key can be twice in this batch.
            results.append(new.pop(key, None) is not None if is_copy else place)
        return results

    async def claim(
        self, queue: str, *, worker: str, limit: int, lease: float, most_losses: int | None = None
    ) -> Sequence[ClaimedJob]:
        """Return jobs with an expired lease to the queue, and claim jobs that are due.

        A row with a message that cannot be read becomes a failed job. If the database goes away
        before that, its lease expires, and a later claim ends it.
        """
        order = OrderedClaim(
            queue=queue,
            worker=to_text(worker),
            limit=limit,
            lease=lease,
            most_losses=UNLIMITED if most_losses is None else most_losses,
        )
        rows = await self._database.write(
            lambda connection: self._batches.claim(connection, order, self._now()), is_single=True
        )
        claimed, broken = _read(rows)
        if broken:
            with suppress(Unavailable):  # the caller must know the jobs that it has claimed
                await self.end(broken)
        return claimed

    async def renew(
        self, attempts: Sequence[Attempt], *, lease: float
    ) -> Sequence[bool | CancelRequest]:
        """Renew leases. Return False for a stale token, or the cancel request, or True."""
        if not attempts:
            return []
        rows = await self._database.write(
            lambda connection: self._batches.renew(connection, attempts, lease, self._now()),
            is_single=True,
        )
        return [
            index in rows and (cancel_request(rows[index]) or True)
            for index in range(len(attempts))
        ]

    async def cancel_requests(self, worker: str) -> Sequence[tuple[Attempt, CancelRequest]]:
        """Return the requests to cancel jobs that an instance runs now."""
        return await self._database.read(
            lambda connection: job_orders.read_cancel_requests(connection, worker)
        )

    async def report(self, attempt: Attempt, progress: JobProgress) -> bool:
        """Store the progress of a running attempt. Return False if the token is stale."""
        return await self._database.write(
            lambda connection: job_orders.store_progress(connection, attempt, progress),
            is_single=True,
        )

    async def report_in(
        self, connection: AsyncConnection, attempt: Attempt, progress: JobProgress
    ) -> bool:
        """Store progress in the transaction of a connection, without a commit; see `report`."""
        return await job_orders.store_progress(connection, attempt, progress)

    async def end(self, ends: Sequence[AttemptEnd]) -> Sequence[JobState | None]:
        """End attempts. Return the state that was written, or None for a stale token."""
        if not ends:
            return []
        return await self._database.write(
            lambda connection: self._batches.end(connection, ends, self._now()), is_single=True
        )

    async def end_in(self, connection: AsyncConnection, end: AttemptEnd) -> JobState | None:
        """End an attempt in the transaction of a connection, without a commit; see `end`."""
        (state,) = await self._batches.end(connection, [end], self._now())
        return state

    async def written_end(self, attempt: Attempt) -> JobState | None:
        """Return the state that an attempt has written, or None.

        The method waits for a transaction that still commits. So it tells the outcome of a commit
        that has failed without an answer.
        """
        return await self._database.write(
            lambda connection: job_orders.written_end(connection, attempt)
        )

    async def find(self, key: JobKey) -> JobRecord | None:
        """Return a job, or None."""
        return await self._database.read(lambda connection: job_orders.find(connection, key))

    async def list(
        self, selection: JobFilter = ANY_JOB, *, limit: int = 100, after: JobRecord | None = None
    ) -> Sequence[JobRecord]:
        """Return jobs, the newest submission first, without their payloads and results."""
        rows = await self._rows(list_jobs(selection, limit, after))
        return [job_record(row) for row in rows]

    async def counts(self) -> Sequence[tuple[str, JobState, int, float | None]]:
        """Return (queue, state, number of jobs, earliest `run_at`) for each pair that occurs."""
        return [tuple(row) for row in await self._rows(COUNT)]

    async def _rows(self, statement: Any) -> Sequence[Row[Any]]:
        async def fetch(connection: AsyncConnection) -> Sequence[Row[Any]]:
            return (await connection.execute(statement)).all()

        return await self._database.read(fetch)

    async def cancel(self, key: JobKey, request: CancelRequest) -> JobRecord | None:
        """Request the cancellation of a job, and return the job after that."""

        async def work(connection: AsyncConnection) -> JobRecord | None:
            now = await present_time(connection, self._now())
            record = await job_orders.order_cancel(connection, key, request, now)
            await self._notify(connection, record)
            return record

        return await self._database.write(work)

    async def retry(self, key: JobKey, *, by: str, reason: str) -> JobRecord | None:
        """Begin the next life of a failed job, and return the job after that."""

        async def work(connection: AsyncConnection) -> JobRecord | None:
            now = await present_time(connection, self._now())
            record = await job_orders.begin_life(connection, key, by=by, reason=reason, now=now)
            await self._notify(connection, record)
            return record

        return await self._database.write(work)

    async def prune(
        self, state: JobState, *, ended_before: float, limit: int, now: float
    ) -> tuple[int, int]:
        """Remove payloads of jobs that ended before a time, and rows that can have no copies."""

        async def work(connection: AsyncConnection) -> tuple[int, int]:
            pruned = await job_orders.prune_payloads(connection, state, ended_before, limit)
            return pruned, await job_orders.remove_rows(connection, state, ended_before, limit, now)

        return await self._database.write(work)

    async def changed(self, queue: str, *, timeout: float) -> bool:
        """Wait until a job of a queue has changed. Return False after `timeout` seconds."""
        return await self._notifications.wait(queue, timeout)

    def reset(self) -> None:
        """Forget the notifications of another event loop or of a parent process."""
        self._notifications.reset()

    async def close(self) -> None:
        """End the connection of the notifications. The owner of the database closes the others."""
        await self._notifications.close()

    async def _notify(self, connection: AsyncConnection, record: JobRecord | None) -> None:
        """Tell the workers of a job that it has changed, if the transaction commits."""
        if record is not None and not record.has_ended and not self._database.is_sqlite:
            await connection.execute(_NOTIFY, {"channel": CHANNEL, "queue": record.queue})


def _read(rows: Sequence[Row[Any]]) -> tuple[Sequence[ClaimedJob], Sequence[AttemptEnd]]:
    """Return the jobs of claimed rows, and the ends of those that cannot be read."""
    claimed, broken = [], []
    for row in rows:
        try:
            claimed.append(claimed_job(row))
        except Undecodable:
            attempt = Attempt(JobKey(from_text(row.submitter), from_text(row.id)), row.token)
            broken.append(AttemptEnd(attempt=attempt, state="failed", failure=_UNREADABLE))
    return claimed, broken
