"""The rows of durable jobs in the stores of services, as their instances report them."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from bus.messaging.jobs.states import JOB_STATES
from bus.messaging.service_info import InstanceStats
from bus.messaging.store_instruments import JOBS_OLDEST_WAITING, JOBS_ROWS

__all__ = ["JobSummary", "summarize_jobs"]

MAX_JOB_TYPES = 1000
"""Maximum number of types in a summary. No real service has as many."""


@dataclass(slots=True, kw_only=True)
class JobSummary:
    """The jobs of one type in the store of their service."""

    operation: str
    """Name of the contract without its version."""
    version: str
    states: Counter[str] = field(default_factory=Counter)
    """Number of jobs by state."""
    oldest_waiting: float = 0.0
    """Seconds for which the oldest job has been due without a start."""

    @property
    def type(self) -> str:
        """Type of the jobs."""
        return f"{self.operation}.v{self.version}"

    @property
    def counts(self) -> str:
        """The numbers by state as text, such as `3 queued, 1 running`."""
        known = [f"{self.states[each]:,} {each}" for each in JOB_STATES if self.states[each]]
        return ", ".join(known)


def summarize_jobs(records: Iterable[object]) -> list[JobSummary]:
    """Return the summary of each type with jobs, the one that waits longest first.

    All instances of a service report the same rows, at slightly different times. So the largest
    number of each state counts.

    Args:
        records: The answers of instances. Only those to STATS have rows.
    """
    found: dict[tuple[str, str], JobSummary] = {}
    for record in records:
        for series in record.series if isinstance(record, InstanceStats) else ():
            if series.name not in {JOBS_ROWS.name, JOBS_OLDEST_WAITING.name}:
                continue
            key = series.labels.get("operation", ""), series.labels.get("version", "")
            if key not in found and len(found) >= MAX_JOB_TYPES:
                continue
            row = found.setdefault(key, JobSummary(operation=key[0], version=key[1]))
            if series.name == JOBS_ROWS.name:
                state = series.labels.get("state", "")
                row.states[state] = max(row.states[state], round(series.value))
            else:
                row.oldest_waiting = max(row.oldest_waiting, series.value)
    rows = [row for row in found.values() if row.counts]
    return sorted(rows, key=lambda row: (-row.oldest_waiting, row.type))
