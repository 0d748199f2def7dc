"""The states of a durable job, and the table of allowed moves. Stores enforce the table."""

from collections.abc import Mapping
from typing import Final, Literal, get_args

__all__ = ["ACTIVE_STATES", "FINAL_STATES", "JOB_STATES", "MOVES", "JobState", "sources_of"]

JobState = Literal["queued", "running", "retrying", "succeeded", "failed", "cancelled"]
"""State of a durable job.

`queued`: it waits for a worker. `running`: a worker has its lease. `retrying`: an attempt failed,
and the next attempt waits for its time. `succeeded`, `failed` and `cancelled`: it has ended.
"""

JOB_STATES: Final[tuple[JobState, ...]] = get_args(JobState)

MOVES: Final[Mapping[JobState, frozenset[JobState]]] = {
    "queued": frozenset({"running", "cancelled", "failed"}),
    "running": frozenset({"queued", "retrying", "succeeded", "failed", "cancelled"}),
    "retrying": frozenset({"running", "cancelled", "failed"}),
    "succeeded": frozenset(),
    "failed": frozenset({"queued"}),
    "cancelled": frozenset(),
}
"""Allowed next states of each state.

A job that waits fails without an attempt if it has expired. `running` to `queued` is the return of
a job whose worker stops or is lost. `failed` to `queued` begins the next life of the job, which an
operator has requested.
"""

ACTIVE_STATES: Final[frozenset[JobState]] = frozenset({"queued", "running", "retrying"})
"""States of a job that has not ended."""
FINAL_STATES: Final[frozenset[JobState]] = frozenset(JOB_STATES) - ACTIVE_STATES


def sources_of(target: JobState) -> tuple[JobState, ...]:
    """Return the states from which a job may move to `target`, in the order of `JOB_STATES`."""
    return tuple(state for state in JOB_STATES if target in MOVES[state])
