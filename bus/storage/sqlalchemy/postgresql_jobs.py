"""The statements of the job store for PostgreSQL. Each one is a transaction of one round trip.

A batch of any size is one statement, whose text does not depend on the size: its parameters are
arrays. A notification is sent when the statement commits.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from sqlalchemy import Row, text
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
from bus.storage.sqlalchemy.notifications import CHANNEL
from bus.storage.sqlalchemy.present import PRESENT
from bus.storage.sqlalchemy.state_rules import WAITING, literals

__all__ = ["PostgresqlJobs"]

_CLOCK: Final = f"present AS MATERIALIZED (SELECT {PRESENT} AS now)"
MOST_EXPIRED: Final = 100
"""Most jobs of lost workers that one claim returns to the queue, so that it stays short."""
_MICROSECOND: Final = "CAST(0.000001 AS double precision)"

_NEW: Final = {
    "id": "text",
    "submitter": "text",
    "type": "text",
    "queue": "text",
    "attempt": "bigint",
    "priority": "bigint",
    "correlation_id": "text",
    "submitted_at": "double precision",
    "run_at": "double precision",
    "expires": "double precision",
    "message": "bytea",
}
_ATTEMPT: Final = {"id": "text", "submitter": "text", "token": "bigint"}
_ENDED: Final = {
    **_ATTEMPT,
    "state": "text",
    "run_at": "double precision",
    "result": "bytea",
    "failure_code": "text",
    "failure_reason": "text",
    "failure_location": "text",
    "headers": "text",
}


def _given(columns: Mapping[str, str]) -> str:
    """Return the table `given`, with one row for each element of the arrays, from number 1.

    It is sorted by key. Two statements that lock the same rows then lock them in the same order,
    for example a renewal and an end of the same jobs. Otherwise each could wait for the other.
    """
    arrays = ", ".join(f"CAST(:{name} AS {kind}[])" for name, kind in columns.items())
    names = ", ".join(columns)
    return f"""given AS MATERIALIZED (
    SELECT * FROM unnest({arrays}) WITH ORDINALITY AS g ({names}, number) ORDER BY id, submitter)"""


def _arrays(columns: Mapping[str, str], values: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    return {name: [each[name] for each in values] for name in columns}


# The keys are sorted, so that two recorders with the same keys do not wait for each other. The
# jobs of a batch differ by a microsecond, so that they start in their order.
_RECORD: Final = text(f"""
WITH {_CLOCK}, {_given(_NEW)},
inserted AS (
    INSERT INTO bus_jobs (
        id, submitter, type, queue, state, life, attempt, losses, token, priority, correlation_id,
        submitted_at, recorded_at, run_at, expires, message,
        progress_number, has_progress, is_pruned)
    SELECT id, submitter, type, queue, 'queued', 1, attempt, 0, 0, priority, correlation_id,
        coalesce(submitted_at, now), now,
        coalesce(run_at, now + {_MICROSECOND} * (number - count(*) OVER ())),
        expires, message, 0, false, false
    FROM given CROSS JOIN present ORDER BY id, submitter
    ON CONFLICT DO NOTHING RETURNING id, submitter, type, queue),
told AS MATERIALIZED (
    SELECT pg_notify('{CHANNEL}', queue) FROM (SELECT DISTINCT queue FROM inserted) AS queues)
SELECT id, submitter, type, queue, (SELECT count(*) FROM told) FROM inserted""")

# Within one priority, the index has the earliest `run_at` first. So the query visits one priority
# after the other, and never reads the many jobs that wait for a later time. `due` is materialized,
# because a query with a limit that runs twice locks further rows. A job that another worker returns
# to the queue at the same time is skipped. A statement does not see its own changes. So if a lease
# has expired, nothing is claimed, and the same statement claims after that, in the right order.
_CLAIM: Final = text(f"""
WITH RECURSIVE {_CLOCK},
expired AS MATERIALIZED (
    SELECT id, submitter FROM bus_jobs
    WHERE queue = :queue AND state = 'running' AND lease_until <= (SELECT now FROM present)
    ORDER BY lease_until LIMIT :most_expired FOR UPDATE SKIP LOCKED),
lost AS (
    UPDATE bus_jobs SET {lost_changes("present.now")} FROM expired, present
    WHERE bus_jobs.id = expired.id AND bus_jobs.submitter = expired.submitter
        AND bus_jobs.state || '' = 'running' RETURNING 1),
priorities (level) AS (
    SELECT max(priority) FROM bus_jobs WHERE queue = :queue AND {IS_WAITING}
    UNION ALL
    SELECT (SELECT max(priority) FROM bus_jobs
        WHERE queue = :queue AND {IS_WAITING} AND priority < level)
    FROM priorities WHERE level IS NOT NULL),
due AS MATERIALIZED (
    SELECT first.id, first.submitter FROM priorities CROSS JOIN LATERAL (
        SELECT id, submitter FROM bus_jobs
        WHERE queue = :queue AND {IS_WAITING} AND priority = level
            AND run_at <= (SELECT now FROM present) AND losses <= :most_losses
        ORDER BY run_at LIMIT :limit FOR UPDATE SKIP LOCKED) AS first
    LIMIT (SELECT CASE WHEN count(*) = 0 THEN :limit ELSE 0 END FROM expired)),
claimed AS (
    UPDATE bus_jobs SET {claim_changes("present.now")} FROM due, present
    WHERE bus_jobs.id = due.id AND bus_jobs.submitter = due.submitter
        AND bus_jobs.state || '' IN ({literals(WAITING)})
    RETURNING {", ".join(f"bus_jobs.{name}" for name in CLAIMED_COLUMNS)})
SELECT lost.number AS lost, claimed.*
FROM (SELECT count(*) AS number FROM lost) AS lost LEFT JOIN claimed ON true
ORDER BY claimed.priority DESC, claimed.run_at""")

# The token fences: an attempt of a job that was handed over finds no row. The expression with the
# state keeps the planner from the indexes of running rows. If few rows ran at the last ANALYZE, it
# would read all running rows for each key.
_RUNS: Final = """bus_jobs.id = given.id AND bus_jobs.submitter = given.submitter
        AND bus_jobs.token = given.token AND bus_jobs.state || '' = 'running'"""

_RENEW: Final = text(f"""
WITH {_CLOCK}, {_given(_ATTEMPT)}
UPDATE bus_jobs SET lease_until = present.now + :lease FROM given, present WHERE {_RUNS}
RETURNING given.number, cancel_by, cancel_reason, cancel_at""")

# A job that returns to the queue can start at once in another process.
_END: Final = text(f"""
WITH {_CLOCK}, {_given(_ENDED)},
ended AS (
    UPDATE bus_jobs SET {end_changes(lambda name: f"given.{name}", "present.now")}
    FROM given, present WHERE {_RUNS}
    RETURNING given.number, bus_jobs.state, bus_jobs.queue),
told AS MATERIALIZED (
    SELECT pg_notify('{CHANNEL}', queue)
    FROM (SELECT DISTINCT queue FROM ended WHERE state = 'queued') AS queues)
SELECT number, state, (SELECT count(*) FROM told) FROM ended""")

_FIND_ENDED: Final = text(f"""
WITH {_given(_ATTEMPT)}
SELECT given.number, end_state FROM given
JOIN bus_jobs USING (id, submitter) WHERE end_token = given.token""")


class PostgresqlJobs:
    """Statements for many jobs in PostgreSQL."""

    async def record(
        self, connection: AsyncConnection, jobs: Sequence[NewJob], now: float | None
    ) -> dict[tuple[str, str], OtherJob]:
        """Insert jobs, and return the stored (id, submitter), type and queue of the new ones."""
        given = _arrays(_NEW, [new_values(job) for job in jobs])
        rows = await connection.execute(_RECORD, {**given, "now": now})
        return {(row.id, row.submitter): place_of(row) for row in rows}

    async def claim(
        self, connection: AsyncConnection, order: OrderedClaim, now: float | None
    ) -> Sequence[Row[Any]]:
        """Return the jobs of lost workers to the queue, claim jobs, and return their rows."""
        parameters = {
            "queue": order.queue,
            "worker": order.worker,
            "limit": order.limit,
            "lease": order.lease,
            "most_losses": order.most_losses,
            "now": now,
        }
        first = {**parameters, "most_expired": MOST_EXPIRED}
        rows = (await connection.execute(_CLAIM, first)).all()
        if rows[0].lost:
            rows = (await connection.execute(_CLAIM, {**parameters, "most_expired": 0})).all()
        return [row for row in rows if row.id is not None]

    async def renew(
        self,
        connection: AsyncConnection,
        attempts: Sequence[Attempt],
        lease: float,
        now: float | None,
    ) -> dict[int, Row[Any]]:
        """Renew leases, and return the rows of the attempts that run, by their index."""
        given = _arrays(_ATTEMPT, [attempt_values(attempt) for attempt in attempts])
        rows = await connection.execute(_RENEW, {**given, "lease": lease, "now": now})
        return {row.number - 1: row for row in rows}

    async def end(
        self, connection: AsyncConnection, ends: Sequence[AttemptEnd], now: float | None
    ) -> Sequence[JobState | None]:
        """End attempts, and return the state of each, or None for a stale token."""
        given = _arrays(_ENDED, [end_values(end) for end in ends])
        rows = await connection.execute(_END, {**given, "now": now})
        states: dict[int, JobState] = {row.number: row.state for row in rows}
        if len(states) < len(ends):
            # An earlier call can have written the end, although it raised an error.
            attempts = _arrays(_ATTEMPT, [attempt_values(end.attempt) for end in ends])
            earlier = await connection.execute(_FIND_ENDED, attempts)
            states = {**{row.number: row.end_state for row in earlier}, **states}
        return [states.get(number) for number in range(1, len(ends) + 1)]
