"""The numbers in the report about a store."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from sqlalchemy import func, select, text
from sqlalchemy.ext.asyncio import AsyncConnection

from bus.messaging.jobs.states import JobState
from bus.messaging.store_address import StoreAddress
from bus.storage.sqlalchemy.present import present_time
from bus.storage.sqlalchemy.state_rules import WAITING
from bus.storage.sqlalchemy.tables import instances, jobs

__all__ = ["Numbers", "read_numbers"]

LIVE_SECONDS = 60.0
"""Seconds after its last sign of life for which an instance counts as live."""
SIZE = text(
    "SELECT coalesce(sum(pg_total_relation_size(c.oid)), 0) FROM pg_class c "
    "WHERE c.relkind = 'r' AND c.relname LIKE 'bus\\_%' AND pg_table_is_visible(c.oid)"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Numbers:
    """The numbers of a store."""

    bytes: int | None = None
    jobs: Mapping[JobState, int] = field(default_factory=dict)
    oldest_waiting: float | None = None
    instances: int = 0


async def read_numbers(connection: AsyncConnection, address: StoreAddress) -> Numbers:
    """Return the numbers of a store with the tables of this version."""
    now = await present_time(connection, None)
    by_state = await connection.execute(
        select(jobs.c.state, func.count()).group_by(jobs.c.state).order_by(jobs.c.state)
    )
    earliest = (
        await connection.execute(
            select(func.min(jobs.c.run_at)).where(jobs.c.state.in_(WAITING), jobs.c.run_at <= now)
        )
    ).scalar()
    live = (
        await connection.execute(
            select(func.count()).where(instances.c.seen_at > now - LIVE_SECONDS)
        )
    ).scalar_one()
    return Numbers(
        bytes=await _size(connection, address),
        jobs={state: int(count) for state, count in by_state},
        oldest_waiting=None if earliest is None else now - earliest,
        instances=int(live),
    )


async def _size(connection: AsyncConnection, address: StoreAddress) -> int:
    if address.path is None:
        return int((await connection.execute(SIZE)).scalar_one())
    # SQLite keeps the last changes in a second file.
    files = (Path(address.path), Path(f"{address.path}-wal"))
    return sum(each.stat().st_size for each in files if each.exists())
