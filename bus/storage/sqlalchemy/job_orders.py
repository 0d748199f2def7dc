"""The orders of submitters and operators about one job, and the removal of old payloads."""

from collections.abc import Collection, Mapping
from typing import Any, Final

from sqlalchemy import ColumnElement, Select, case, delete, literal, select, tuple_, update
from sqlalchemy.ext.asyncio import AsyncConnection

from bus.errors import FailedPrecondition
from bus.messaging.envelope import to_stored_bytes
from bus.messaging.jobs.next_life import next_expires
from bus.messaging.jobs.records import (
    Attempt,
    CancelRequest,
    JobKey,
    JobLife,
    JobProgress,
    JobRecord,
    OtherJob,
)
from bus.messaging.jobs.retention import COPIES_SECONDS, PRUNED
from bus.messaging.jobs.states import JobState, sources_of
from bus.storage.sqlalchemy.job_rows import (
    attempt_values,
    cancel_request,
    job_key,
    job_record,
    lives_text,
    place_of,
)
from bus.storage.sqlalchemy.job_selection import is_key
from bus.storage.sqlalchemy.tables import jobs
from bus.storage.sqlalchemy.texts import to_text

__all__ = [
    "begin_life",
    "find",
    "order_cancel",
    "prune_payloads",
    "read_cancel_requests",
    "read_places",
    "remove_rows",
    "store_progress",
    "written_end",
]

_RETRIED: Final = tuple(state for state in sources_of("queued") if state != "running")
_CANCELLED: Final = tuple(state for state in sources_of("cancelled") if state != "running")


async def find(
    connection: AsyncConnection, key: JobKey, *, is_locked: bool = False
) -> JobRecord | None:
    """Return a job, or None. A locked row does not change before the end of the transaction."""
    statement = select(jobs).where(is_key(key))
    rows = await connection.execute(statement.with_for_update() if is_locked else statement)
    row = rows.one_or_none()
    return None if row is None else job_record(row)


async def read_places(
    connection: AsyncConnection, keys: Collection[tuple[str, str]]
) -> dict[tuple[str, str], OtherJob]:
    """Return the types and queues of the jobs with these stored (id, submitter)."""
    columns = [jobs.c[name] for name in ("id", "submitter", "type", "queue")]
    statement = select(*columns).where(tuple_(jobs.c.id, jobs.c.submitter).in_(keys))
    return {(row.id, row.submitter): place_of(row) for row in await connection.execute(statement)}


async def store_progress(
    connection: AsyncConnection, attempt: Attempt, progress: JobProgress
) -> bool:
    """Store the progress of a running attempt, and return False if the token is stale."""
    values = attempt_values(attempt)
    is_later = jobs.c.progress_number < progress.number
    changes: Mapping[str, Any] = {
        "progress_number": progress.number,
        "has_progress": True,
        "progress": progress.progress,
        "progress_update": None if progress.update is None else to_stored_bytes(progress.update),
    }
    done = await connection.execute(
        update(jobs)
        .where(
            jobs.c.id == values["id"],
            jobs.c.submitter == values["submitter"],
            jobs.c.token == values["token"],
            jobs.c.state == "running",
        )
        .values(
            {
                name: case((is_later, literal(value, jobs.c[name].type)), else_=jobs.c[name])
                for name, value in changes.items()
            }
        )
    )
    return bool(done.rowcount)


async def written_end(connection: AsyncConnection, attempt: Attempt) -> JobState | None:
    """Return the state that an attempt has written, or None. Wait for other transactions."""
    statement = select(jobs.c.end_state).where(
        is_key(attempt.key), jobs.c.end_token == attempt.token
    )
    # The condition is checked again after the wait for a lock, so the first read must find the row.
    locked = select(jobs.c.id).where(is_key(attempt.key)).with_for_update()
    await connection.execute(locked)
    return (await connection.execute(statement)).scalar_one_or_none()


async def order_cancel(
    connection: AsyncConnection, key: JobKey, request: CancelRequest, now: float
) -> JobRecord | None:
    """Cancel a job that waits, store the request for a running one, and return the job."""
    record = await find(connection, key, is_locked=True)
    if record is None or record.has_ended:
        return record
    changes: dict[str, Any] = {}
    if record.cancel is None:
        changes = {
            "cancel_by": to_text(request.by),
            "cancel_reason": to_text(request.reason),
            "cancel_at": request.at,
        }
    if record.state in _CANCELLED:
        changes |= {"state": "cancelled", "ended_at": now}
    if changes:
        await _change(connection, record, changes)
    return await find(connection, key)


async def read_cancel_requests(
    connection: AsyncConnection, worker: str
) -> list[tuple[Attempt, CancelRequest]]:
    """Return the requests to cancel jobs that an instance runs now."""
    columns = jobs.c
    statement: Select[Any] = select(
        *(columns.submitter, columns.id, columns.token),
        *(columns.cancel_by, columns.cancel_reason, columns.cancel_at),
    ).where(
        columns.state == "running",
        columns.worker == to_text(worker),
        columns.cancel_at.is_not(None),
    )
    return [
        (Attempt(job_key(row), row.token), request)
        for row in await connection.execute(statement)
        if (request := cancel_request(row)) is not None
    ]


async def begin_life(
    connection: AsyncConnection, key: JobKey, *, by: str, reason: str, now: float
) -> JobRecord | None:
    """Begin the next life of a failed job, and return the job.

    Raises:
        FailedPrecondition: Retention has removed the payload of the job.
    """
    record = await find(connection, key, is_locked=True)
    if record is None or record.state not in _RETRIED:
        return record
    if record.is_pruned:
        raise FailedPrecondition(PRUNED.format(id=key.id))
    life = JobLife(life=record.life + 1, by=by, reason=reason, at=now, failure=record.failure)
    cleared = (
        *("started_at", "ended_at", "cancel_by", "cancel_reason", "cancel_at", "headers"),
        *("failure_code", "failure_reason", "failure_location", "result"),
        *("progress", "progress_update"),
    )
    changes = {
        "state": "queued",
        "life": life.life,
        "lives": lives_text((*record.lives, life)),
        "token": record.token + 1,
        "attempt": 0,
        "losses": 0,
        "run_at": now,
        "expires": next_expires(record, now),
        "has_progress": False,
        **dict.fromkeys(cleared),
    }
    await _change(connection, record, changes)
    return await find(connection, key)


async def _change(
    connection: AsyncConnection, record: JobRecord, changes: Mapping[str, Any]
) -> None:
    """Change a locked row."""
    await connection.execute(
        update(jobs).where(is_key(record.key), jobs.c.state == record.state).values(changes)
    )


async def prune_payloads(
    connection: AsyncConnection, state: JobState, ended_before: float, limit: int
) -> int:
    """Remove payloads, results and progress, and return the number of jobs."""
    old = (
        select(jobs.c.id, jobs.c.submitter)
        .where(
            jobs.c.state == state,
            jobs.c.ended_at.is_not(None) & ~jobs.c.is_pruned,
            jobs.c.ended_at < ended_before,
        )
        .order_by(jobs.c.ended_at)
        .limit(limit)
        .with_for_update(skip_locked=True)
    )
    removed = ("message", "result", "progress_update", "headers")
    changes = {"is_pruned": True, **dict.fromkeys(removed)}
    done = await connection.execute(update(jobs).where(_is_one_of(connection, old)).values(changes))
    return done.rowcount


async def remove_rows(
    connection: AsyncConnection, state: JobState, ended_before: float, limit: int, now: float
) -> int:
    """Remove rows whose messages cannot have a copy, and return their number."""
    dead = now - COPIES_SECONDS
    old = (
        select(jobs.c.id, jobs.c.submitter)
        .where(
            jobs.c.is_pruned,
            jobs.c.state == state,
            jobs.c.expires <= dead,
            jobs.c.recorded_at <= dead,
            jobs.c.ended_at < ended_before,
        )
        .order_by(jobs.c.expires)
        .limit(limit)
        .with_for_update(skip_locked=True)
    )
    done = await connection.execute(delete(jobs).where(_is_one_of(connection, old)))
    return done.rowcount


def _is_one_of(connection: AsyncConnection, keys: Select[Any]) -> ColumnElement[bool]:
    """Return the condition for the jobs with keys that a query finds.

    PostgreSQL must run the query once: with a limit, it would lock and find further rows. SQLite
    does so in any case, and Python's driver does not count the rows of a statement with `WITH`.
    """
    key = tuple_(jobs.c.id, jobs.c.submitter)
    if connection.dialect.name == "sqlite":
        return key.in_(keys)
    found = keys.cte("old").prefix_with("MATERIALIZED")
    return key.in_(select(found.c.id, found.c.submitter))
