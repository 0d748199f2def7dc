"""The first revision: jobs, the inbox, instances, pauses, and the identity of the store.

The comments about the columns are in `bus.storage.sqlalchemy.tables`.
"""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

KEY = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
STATES = "'queued', 'running', 'retrying', 'succeeded', 'failed', 'cancelled'"
ALLOWED = (
    "(OLD.state = 'queued' AND NEW.state IN ('running', 'failed', 'cancelled'))"
    " OR (OLD.state = 'running' AND NEW.state IN"
    " ('queued', 'retrying', 'succeeded', 'failed', 'cancelled'))"
    " OR (OLD.state = 'retrying' AND NEW.state IN ('running', 'failed', 'cancelled'))"
    " OR (OLD.state = 'failed' AND NEW.state IN ('queued'))"
)
MESSAGE = "bus_jobs: this move of a job between two states is not allowed"
POSTGRESQL = (
    f"""
CREATE OR REPLACE FUNCTION bus_refuse_move() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '{MESSAGE}' USING ERRCODE = 'check_violation';
END
$$""",
    f"""
CREATE TRIGGER bus_jobs_moves BEFORE UPDATE OF state ON bus_jobs
FOR EACH ROW WHEN (NOT ({ALLOWED})) EXECUTE FUNCTION bus_refuse_move()""",
)
SQLITE = (
    f"""
CREATE TRIGGER bus_jobs_moves BEFORE UPDATE OF state ON bus_jobs
FOR EACH ROW WHEN NOT ({ALLOWED})
BEGIN
    SELECT RAISE(ABORT, '{MESSAGE}');
END""",
)


def upgrade() -> None:
    """Create all tables."""
    _create_jobs()
    _create_inbox()
    op.create_table(
        "bus_instances",
        sa.Column("instance", sa.Text, nullable=False),
        sa.Column("seen_at", sa.Double, nullable=False),
        sa.Column("recorded_until", sa.Double, nullable=False),
        sa.PrimaryKeyConstraint("instance", name="pk_bus_instances"),
    )
    op.create_table(
        "bus_pauses",
        sa.Column("queue", sa.Text, nullable=False),
        sa.Column("by", sa.Text, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("at", sa.Double, nullable=False),
        sa.Column("until", sa.Double),
        sa.PrimaryKeyConstraint("queue", name="pk_bus_pauses"),
    )
    op.create_table(
        "bus_store",
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("service", sa.Text, nullable=False),
        sa.Column("oldest_revision", sa.Text, nullable=False),
        sa.Column("created_at", sa.Double, nullable=False),
        sa.Column("next_prune_at", sa.Double, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_bus_store"),
    )


def _create_jobs() -> None:
    op.create_table(
        "bus_jobs",
        sa.Column("id", KEY, nullable=False),
        sa.Column("submitter", KEY, nullable=False),
        sa.Column("type", sa.Text, nullable=False),
        sa.Column("queue", sa.Text, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("life", sa.BigInteger, nullable=False),
        sa.Column("attempt", sa.BigInteger, nullable=False),
        sa.Column("losses", sa.BigInteger, nullable=False),
        sa.Column("token", sa.BigInteger, nullable=False),
        sa.Column("priority", sa.BigInteger, nullable=False),
        sa.Column("correlation_id", sa.Text, nullable=False),
        sa.Column("submitted_at", sa.Double, nullable=False),
        sa.Column("recorded_at", sa.Double, nullable=False),
        sa.Column("run_at", sa.Double, nullable=False),
        sa.Column("expires", sa.Double),
        sa.Column("started_at", sa.Double),
        sa.Column("ended_at", sa.Double),
        sa.Column("worker", sa.Text),
        sa.Column("lease_until", sa.Double),
        sa.Column("end_token", sa.BigInteger),
        sa.Column("end_state", sa.Text),
        sa.Column("cancel_by", sa.Text),
        sa.Column("cancel_reason", sa.Text),
        sa.Column("cancel_at", sa.Double),
        sa.Column("failure_code", sa.Text),
        sa.Column("failure_reason", sa.Text),
        sa.Column("failure_location", sa.Text),
        sa.Column("progress_number", sa.BigInteger, nullable=False),
        sa.Column("has_progress", sa.Boolean, nullable=False),
        sa.Column("progress", sa.Double),
        sa.Column("progress_update", sa.LargeBinary),
        sa.Column("headers", sa.Text),
        sa.Column("lives", sa.Text),
        sa.Column("is_pruned", sa.Boolean, nullable=False),
        sa.Column("message", sa.LargeBinary),
        sa.Column("result", sa.LargeBinary),
        sa.PrimaryKeyConstraint("id", "submitter", name="pk_bus_jobs"),
        sa.CheckConstraint(f"state IN ({STATES})", name="ck_bus_jobs_state"),
    )
    _create_index("claim", ["queue", sa.text("priority DESC"), "run_at", "state"], _WAITING)
    _create_index("lease", ["queue", "lease_until"], "state = 'running'")
    _create_index("submitted", ["submitted_at", "submitter", "id"])
    _create_index(
        "state",
        ["state", "submitted_at", "submitter", "id"],
        "state IN ('queued', 'retrying', 'failed', 'cancelled')",
    )
    _create_index(
        "failure",
        ["failure_code", "submitted_at", "submitter", "id"],
        "failure_code IS NOT NULL",
    )
    _create_index("type", ["type", "submitted_at"])
    _create_index("submitter", ["submitter", "submitted_at"])
    _create_index("count", ["queue", "state"])
    op.create_index(
        "ix_bus_jobs_correlation", "bus_jobs", ["correlation_id"], postgresql_using="hash"
    )
    _create_index("ended", ["state", "ended_at"], "ended_at IS NOT NULL AND NOT is_pruned")
    _create_index("pruned", ["state", "expires"], "is_pruned")
    for statement in POSTGRESQL if op.get_context().dialect.name == "postgresql" else SQLITE:
        op.execute(statement)


_WAITING = "state IN ('queued', 'retrying')"


def _create_index(
    name: str, columns: list[str | sa.TextClause], where: str | None = None, table: str = "bus_jobs"
) -> None:
    condition = None if where is None else sa.text(where)
    op.create_index(
        f"ix_{table}_{name}", table, columns, postgresql_where=condition, sqlite_where=condition
    )


def _create_inbox() -> None:
    op.create_table(
        "bus_inbox",
        sa.Column("key", sa.LargeBinary(32), nullable=False),
        sa.Column("subscriber", sa.Text, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("subscription", sa.Text, nullable=False),
        sa.Column("source", sa.Text, nullable=False),
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("token", sa.BigInteger, nullable=False),
        sa.Column("lease_until", sa.Double, nullable=False),
        sa.Column("handled_at", sa.Double),
        sa.Column("reply", sa.LargeBinary),
        sa.PrimaryKeyConstraint("key", name="pk_bus_inbox"),
    )
    _create_index("handled", ["handled_at"], "handled_at IS NOT NULL", "bus_inbox")
    _create_index("lease", ["lease_until"], "handled_at IS NULL", "bus_inbox")
    op.create_table(
        "bus_inbox_renewals",
        sa.Column("token", sa.BigInteger, nullable=False, autoincrement=False),
        sa.Column("lease_until", sa.Double, nullable=False),
        sa.PrimaryKeyConstraint("token", name="pk_bus_inbox_renewals"),
    )
