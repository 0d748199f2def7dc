"""The tables of the store. Times are in seconds since the epoch.

The migrations create the tables, and import nothing from this module. A test compares both.
"""

from typing import Any

from sqlalchemy import (
    DDL,
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Double,
    Index,
    LargeBinary,
    MetaData,
    Table,
    Text,
    event,
    text,
)

from bus.storage.sqlalchemy.state_rules import (
    STATE_CHECK,
    WAITING,
    literals,
    trigger_statements,
)

__all__ = ["inbox", "inbox_renewals", "instances", "jobs", "metadata", "pauses", "store"]

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
        "pk": "pk_%(table_name)s",
    }
)

_KEY = Text().with_variant(Text(collation="C"), "postgresql")
"""Text that is compared by its bytes, so that an index finds a prefix."""


def _where(condition: str) -> dict[str, Any]:
    return {"postgresql_where": text(condition), "sqlite_where": text(condition)}


_IS_WAITING = f"state IN ({literals(WAITING)})"

jobs = Table(
    "bus_jobs",
    metadata,
    # The id is first, so that an index finds the first characters of an id.
    Column("id", _KEY, primary_key=True),
    Column("submitter", _KEY, primary_key=True),
    Column("type", Text, nullable=False),
    Column("queue", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("life", BigInteger, nullable=False),
    Column("attempt", BigInteger, nullable=False),
    Column("losses", BigInteger, nullable=False),
    Column("token", BigInteger, nullable=False),
    Column("priority", BigInteger, nullable=False),
    Column("correlation_id", Text, nullable=False),
    Column("submitted_at", Double, nullable=False),
    Column("recorded_at", Double, nullable=False),
    Column("run_at", Double, nullable=False),
    Column("expires", Double),
    Column("started_at", Double),
    Column("ended_at", Double),
    Column("worker", Text),
    Column("lease_until", Double),
    # The last attempt that wrote its end, and the state that it wrote, for a repeated write.
    Column("end_token", BigInteger),
    Column("end_state", Text),
    Column("cancel_by", Text),
    Column("cancel_reason", Text),
    Column("cancel_at", Double),
    Column("failure_code", Text),
    Column("failure_reason", Text),
    Column("failure_location", Text),
    # The number goes on in the next life, in which a job has no progress at first.
    Column("progress_number", BigInteger, nullable=False),
    Column("has_progress", Boolean, nullable=False),
    Column("progress", Double),
    Column("progress_update", LargeBinary),
    # Headers of the next attempt, as JSON.
    Column("headers", Text),
    # Lives after the first one, as JSON.
    Column("lives", Text),
    Column("is_pruned", Boolean, nullable=False),
    # Envelopes, as `to_stored_bytes` writes them.
    Column("message", LargeBinary),
    Column("result", LargeBinary),
    CheckConstraint(STATE_CHECK, name="state"),
)
"""One row for each job. The encrypted payload of a contract stays encrypted."""

Index(
    "ix_bus_jobs_claim",
    jobs.c.queue,
    jobs.c.priority.desc(),
    jobs.c.run_at,
    jobs.c.state,  # so that the earliest time by state is found without the rows
    **_where(_IS_WAITING),
)
Index("ix_bus_jobs_lease", jobs.c.queue, jobs.c.lease_until, **_where("state = 'running'"))
Index("ix_bus_jobs_submitted", jobs.c.submitted_at, jobs.c.submitter, jobs.c.id)
# Most rows have succeeded, and a list of all rows finds these at once. Few rows run, and the index
# of leases has these.
Index(
    "ix_bus_jobs_state",
    jobs.c.state,
    jobs.c.submitted_at,
    jobs.c.submitter,
    jobs.c.id,
    **_where("state IN ('queued', 'retrying', 'failed', 'cancelled')"),
)
Index(
    "ix_bus_jobs_failure",
    jobs.c.failure_code,
    jobs.c.submitted_at,
    jobs.c.submitter,
    jobs.c.id,
    **_where("failure_code IS NOT NULL"),
)
# A list by a rare value must not read the whole table.
Index("ix_bus_jobs_type", jobs.c.type, jobs.c.submitted_at)
Index("ix_bus_jobs_submitter", jobs.c.submitter, jobs.c.submitted_at)
# The counts read this index, which is a hundredth of the table.
Index("ix_bus_jobs_count", jobs.c.queue, jobs.c.state)
# A hash has no limit for the length of a text.
Index("ix_bus_jobs_correlation", jobs.c.correlation_id, postgresql_using="hash")
Index(
    "ix_bus_jobs_ended",
    jobs.c.state,
    jobs.c.ended_at,
    **_where("ended_at IS NOT NULL AND NOT is_pruned"),
)
Index("ix_bus_jobs_pruned", jobs.c.state, jobs.c.expires, **_where("is_pruned"))

for _dialect in ("postgresql", "sqlite"):
    for _statement in trigger_statements(_dialect):
        event.listen(
            jobs,
            "after_create",
            DDL(_statement).execute_if(dialect=_dialect),  # type: ignore[no-untyped-call]
        )

inbox = Table(
    "bus_inbox",
    metadata,
    Column("key", LargeBinary(32), primary_key=True),
    Column("subscriber", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("subscription", Text, nullable=False),
    Column("source", Text, nullable=False),
    Column("id", Text, nullable=False),
    Column("token", BigInteger, nullable=False),
    Column("lease_until", Double, nullable=False),
    Column("handled_at", Double),
    Column("reply", LargeBinary),
)
"""Messages that handlers have handled, or handle now. The key is a digest of the next columns."""

Index("ix_bus_inbox_handled", inbox.c.handled_at, **_where("handled_at IS NOT NULL"))
Index("ix_bus_inbox_lease", inbox.c.lease_until, **_where("handled_at IS NULL"))

inbox_renewals = Table(
    "bus_inbox_renewals",
    metadata,
    Column("token", BigInteger, primary_key=True, autoincrement=False),
    Column("lease_until", Double, nullable=False),
)
"""Renewed leases of claims in the inbox.

They are not in the claim's row, because a serializable transaction of a handler fails if another
transaction has changed its row.
"""

instances = Table(
    "bus_instances",
    metadata,
    Column("instance", Text, primary_key=True),
    Column("seen_at", Double, nullable=False),
    Column("recorded_until", Double, nullable=False),
)
"""Signs of life of the instances of the service."""

pauses = Table(
    "bus_pauses",
    metadata,
    Column("queue", Text, primary_key=True),
    Column("by", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("at", Double, nullable=False),
    Column("until", Double),
)
"""Pauses of consumers that operators have requested."""

store = Table(
    "bus_store",
    metadata,
    Column("id", Text, primary_key=True),
    # Empty until the first service opens the store.
    Column("service", Text, nullable=False),
    # The oldest revision of the bus that can use the tables as they are now.
    Column("oldest_revision", Text, nullable=False),
    Column("created_at", Double, nullable=False),
    # Time after which an instance may prune the store again.
    Column("next_prune_at", Double, nullable=False),
)
"""One row: the identity of the store, its owner, and the revisions that can use it."""
