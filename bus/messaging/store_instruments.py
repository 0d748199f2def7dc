"""The instruments of durable jobs and of their store. `bus.messaging.instruments` lists them, too.

`version` is the version of the contract. The gauges of rows describe the whole store, so all
instances of a service report the same values.
"""

from typing import Final

from bus.messaging.ports.meter import Instrument

__all__ = [
    "JOBS_LEASES_LOST",
    "JOBS_OLDEST_WAITING",
    "JOBS_RECORDED",
    "JOBS_ROWS",
    "JOBS_STALE_WRITES",
    "JOBS_START_DELAY",
    "JOB_LABELS",
    "STORE_INSTRUMENTS",
    "STORE_REACHABLE",
    "STORE_STATEMENT_SECONDS",
]

JOB_LABELS: Final = ("operation", "version")
"""Labels of a type of jobs."""

JOBS_ROWS: Final = Instrument(
    name="jobs.rows",
    kind="gauge",
    unit="1",
    description="Jobs in the store by state, with the ended ones that it still keeps.",
    labels=(*JOB_LABELS, "state"),
)
JOBS_OLDEST_WAITING: Final = Instrument(
    name="jobs.oldest_waiting",
    kind="gauge",
    unit="s",
    description="Time for which the oldest job has been due without a start. 0 without one.",
    labels=JOB_LABELS,
)
JOBS_RECORDED: Final = Instrument(
    name="jobs.recorded",
    kind="counter",
    unit="1",
    description="Jobs that this service recorded in the store, without copies of known jobs.",
    labels=JOB_LABELS,
)
JOBS_START_DELAY: Final = Instrument(
    name="jobs.start_delay",
    kind="histogram",
    unit="s",
    description="Time from the submission of a job to the start of its first attempt.",
    labels=JOB_LABELS,
)
JOBS_LEASES_LOST: Final = Instrument(
    name="jobs.leases_lost",
    kind="counter",
    unit="1",
    description="Attempts of this service that ended because their lease belongs to another one.",
    labels=JOB_LABELS,
)
JOBS_STALE_WRITES: Final = Instrument(
    name="jobs.stale_writes",
    kind="counter",
    unit="1",
    description="Writes of attempts that the store refused, because their token is old.",
    labels=JOB_LABELS,
)
STORE_STATEMENT_SECONDS: Final = Instrument(
    name="store.statement.duration",
    kind="histogram",
    unit="s",
    description="Duration of a statement in the store, with the wait for a connection.",
    labels=("statement",),
)
"""`statement` is the name of a statement, such as `claim`, and never its text."""
STORE_REACHABLE: Final = Instrument(
    name="store.reachable",
    kind="gauge",
    unit="1",
    description="1 if the store answered the last query of this process for its rows, else 0.",
    labels=(),
)

STORE_INSTRUMENTS: Final = (
    *(JOBS_ROWS, JOBS_OLDEST_WAITING, JOBS_RECORDED, JOBS_START_DELAY),
    *(JOBS_LEASES_LOST, JOBS_STALE_WRITES),
    *(STORE_STATEMENT_SECONDS, STORE_REACHABLE),
)
