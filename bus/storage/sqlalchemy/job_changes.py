"""The changes of a row at a claim, at the loss of a worker, and at the end of an attempt.

Both databases use the same expressions, so that a job has the same life in both.
"""

from collections.abc import Callable
from typing import Final

from bus.messaging.jobs.states import FINAL_STATES, JOB_STATES
from bus.storage.sqlalchemy.state_rules import WAITING, literals

__all__ = ["CLAIMED_COLUMNS", "IS_WAITING", "claim_changes", "end_changes", "lost_changes"]

IS_WAITING: Final = f"state IN ({literals(WAITING)})"
"""Condition for a job that a worker can claim. It is the condition of an index, word for word."""
CLAIMED_COLUMNS: Final = (
    *("id", "submitter", "queue", "life", "attempt", "losses", "token"),
    *("progress_number", "headers", "message", "priority", "run_at", "expires"),
)
_FINAL: Final = literals(tuple(state for state in JOB_STATES if state in FINAL_STATES))


def claim_changes(now: str) -> str:
    """Return the assignments of a claim, with the parameters `worker` and `lease`.

    Args:
        now: Expression of the present time.
    """
    return f"""
        state = 'running', attempt = attempt + 1, token = token + 1, started_at = {now},
        worker = :worker, lease_until = {now} + :lease"""


def lost_changes(now: str) -> str:
    """Return the assignments for a job whose worker was lost."""
    return f"""
        state = CASE WHEN cancel_at IS NULL THEN 'queued' ELSE 'cancelled' END,
        ended_at = CASE WHEN cancel_at IS NULL THEN NULL ELSE {now} END,
        attempt = attempt - 1, losses = losses + 1, lease_until = NULL"""


def end_changes(new: Callable[[str], str], now: str) -> str:
    """Return the assignments for the end of an attempt.

    Args:
        new: Function that returns the expression of a value of `end_values`.
        now: Expression of the present time.
    """
    state, run_at = new("state"), new("run_at")
    is_cancelled = f"bus_jobs.cancel_at IS NOT NULL AND {state} IN ('queued', 'retrying', 'failed')"
    is_final = f"({state} IN ({_FINAL}) OR ({is_cancelled}))"
    next_state = f"CASE WHEN {is_cancelled} THEN 'cancelled' ELSE {state} END"
    failure = "\n".join(
        f"{name} = CASE WHEN {state} = 'queued' THEN bus_jobs.{name} ELSE {new(name)} END,"
        for name in ("failure_code", "failure_reason", "failure_location")
    )
    return f"""
        state = {next_state},
        end_token = bus_jobs.token,
        end_state = {next_state},
        attempt = CASE WHEN {state} = 'queued' THEN bus_jobs.attempt - 1 ELSE bus_jobs.attempt END,
        lease_until = NULL,
        run_at = CASE {state} WHEN 'queued' THEN coalesce({run_at}, bus_jobs.run_at)
            WHEN 'retrying' THEN coalesce({run_at}, {now}) ELSE bus_jobs.run_at END,
        ended_at = CASE WHEN {is_final} THEN {now} END,
        result = CASE WHEN {is_final} THEN {new("result")} END,
        {failure}
        headers = coalesce({new("headers")}, bus_jobs.headers)"""
