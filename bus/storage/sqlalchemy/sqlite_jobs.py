"""The statements of the job store for SQLite.

Each batch is one transaction, which takes the write lock at its beginning. So two processes never
read the same state of a row. A statement for many rows is one call of the driver.
"""

import json
from collections.abc import Sequence
from typing import Any, Final

from sqlalchemy import Row, text
from sqlalchemy.dialects.sqlite import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from bus.messaging.jobs.records import Attempt, AttemptEnd, NewJob, OtherJob
from bus.messaging.jobs.states import JobState
from bus.storage.sqlalchemy.job_batches import OrderedClaim
from bus.storage.sqlalchemy.job_changes import (
    CLAIMED_COLUMNS,
    IS_WAITING,
    claim_changes,
    end_changes,
    lost_changes,
)
from bus.storage.sqlalchemy.job_rows import attempt_values, end_values, new_values, place_of
from bus.storage.sqlalchemy.present import present_time
from bus.storage.sqlalchemy.tables import jobs as jobs_table

__all__ = ["SqliteJobs"]

_RECORD: Final = (
    insert(jobs_table)
    .on_conflict_do_nothing()
    .returning(*(jobs_table.c[name] for name in ("id", "submitter", "type", "queue")))
)
_LOSE: Final = text(f"""
UPDATE bus_jobs SET {lost_changes(":now")}
WHERE queue = :queue AND state = 'running' AND lease_until <= :now""")
# The number of a row orders jobs that were recorded at the same time.
_CLAIM: Final = text(f"""
UPDATE bus_jobs SET {claim_changes(":now")}
WHERE rowid IN (
    SELECT rowid FROM bus_jobs
    WHERE queue = :queue AND {IS_WAITING} AND run_at <= :now AND losses <= :most_losses
    ORDER BY priority DESC, run_at, rowid LIMIT :limit)
RETURNING rowid AS number, {", ".join(CLAIMED_COLUMNS)}""")
# The columns have values of their own, so a value of an end has another name than its column.
_END: Final = text(f"""
UPDATE bus_jobs SET {end_changes(lambda name: f":{name}", ":now")}
WHERE id = :id AND submitter = :submitter AND token = :token AND state = 'running'""")
_GIVEN: Final = """
    (SELECT key AS number, json_extract(value, '$[0]') AS id,
        json_extract(value, '$[1]') AS submitter, json_extract(value, '$[2]') AS token
    FROM json_each(:attempts)) AS given"""
_ENDED: Final = text(f"""
SELECT given.number, bus_jobs.end_state FROM {_GIVEN}
JOIN bus_jobs USING (id, submitter) WHERE bus_jobs.end_token = given.token""")
_RENEW: Final = text(f"""
UPDATE bus_jobs SET lease_until = :until FROM {_GIVEN}
WHERE bus_jobs.id = given.id AND bus_jobs.submitter = given.submitter
    AND bus_jobs.token = given.token AND bus_jobs.state = 'running'""")
_RENEWED: Final = text(f"""
SELECT given.number, cancel_by, cancel_reason, cancel_at FROM {_GIVEN}
JOIN bus_jobs USING (id, submitter)
WHERE bus_jobs.token = given.token AND bus_jobs.state = 'running'""")


class SqliteJobs:
    """Statements for many jobs in SQLite."""

    async def record(
        self, connection: AsyncConnection, jobs: Sequence[NewJob], now: float | None
    ) -> dict[tuple[str, str], OtherJob]:
        """Insert jobs, and return the stored (id, submitter), type and queue of the new ones."""
        present = await present_time(connection, now)
        rows = await connection.execute(_RECORD, [_row(job, present) for job in jobs])
        return {(row.id, row.submitter): place_of(row) for row in rows}

    async def claim(
        self, connection: AsyncConnection, order: OrderedClaim, now: float | None
    ) -> Sequence[Row[Any]]:
        """Return the jobs of lost workers to the queue, claim jobs, and return their rows."""
        present = await present_time(connection, now)
        await connection.execute(_LOSE, {"queue": order.queue, "now": present})
        parameters = {
            "queue": order.queue,
            "worker": order.worker,
            "limit": order.limit,
            "lease": order.lease,
            "most_losses": order.most_losses,
            "now": present,
        }
        rows = (await connection.execute(_CLAIM, parameters)).all()
        return sorted(rows, key=lambda row: (-row.priority, row.run_at, row.number))

    async def renew(
        self,
        connection: AsyncConnection,
        attempts: Sequence[Attempt],
        lease: float,
        now: float | None,
    ) -> dict[int, Row[Any]]:
        """Renew leases, and return the rows of the attempts that run, by their index."""
        given = {"attempts": _attempts(attempts)}
        until = await present_time(connection, now) + lease
        await connection.execute(_RENEW, {**given, "until": until})
        return {row.number: row for row in await connection.execute(_RENEWED, given)}

    async def end(
        self, connection: AsyncConnection, ends: Sequence[AttemptEnd], now: float | None
    ) -> Sequence[JobState | None]:
        """End attempts, and return the state of each, or None for a stale token."""
        present = await present_time(connection, now)
        await connection.execute(_END, [{**end_values(end), "now": present} for end in ends])
        given = {"attempts": _attempts([end.attempt for end in ends])}
        states = {row.number: row.end_state for row in await connection.execute(_ENDED, given)}
        return [states.get(number) for number in range(len(ends))]


def _row(job: NewJob, now: float) -> dict[str, Any]:
    values = new_values(job)
    return {
        **values,
        "state": "queued",
        "life": 1,
        "losses": 0,
        "token": 0,
        "submitted_at": values["submitted_at"] or now,
        "recorded_at": now,
        "run_at": now if values["run_at"] is None else values["run_at"],
        "progress_number": 0,
        "has_progress": False,
        "is_pruned": False,
    }


def _attempts(attempts: Sequence[Attempt]) -> str:
    """Return attempts as a JSON array of arrays (id, submitter, token)."""
    return json.dumps([[*attempt_values(attempt).values()] for attempt in attempts])
