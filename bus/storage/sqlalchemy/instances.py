"""Signs of life of the instances of the service."""

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import delete, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

from bus.messaging.ports.store import InstanceBeat
from bus.storage.sqlalchemy.tables import instances

__all__ = ["INSERTS", "forget", "forget_lost", "read_beats", "write_beat"]

INSERTS: Mapping[str, Any] = {"postgresql": postgresql.insert, "sqlite": sqlite.insert}
"""Both have the same form of an upsert, and no common type."""


async def write_beat(
    connection: AsyncConnection, instance: str, *, now: float, recorded_until: float
) -> None:
    """Write a sign of life."""
    statement = INSERTS[connection.dialect.name](instances).values(
        instance=instance, seen_at=now, recorded_until=recorded_until
    )
    await connection.execute(
        statement.on_conflict_do_update(
            index_elements=[instances.c.instance],
            set_={"seen_at": now, "recorded_until": recorded_until},
        )
    )


async def read_beats(connection: AsyncConnection) -> Sequence[InstanceBeat]:
    """Return the last sign of life of each instance."""
    rows = await connection.execute(
        select(instances.c.instance, instances.c.seen_at, instances.c.recorded_until)
    )
    return [
        InstanceBeat(instance=row.instance, seen_at=row.seen_at, recorded_until=row.recorded_until)
        for row in rows
    ]


async def forget(connection: AsyncConnection, instance: str) -> None:
    """Remove an instance that has stopped."""
    await connection.execute(delete(instances).where(instances.c.instance == instance))


async def forget_lost(connection: AsyncConnection, *, seen_before: float) -> int:
    """Remove instances that ended without a stop. Return their number."""
    done = await connection.execute(delete(instances).where(instances.c.seen_at < seen_before))
    return done.rowcount
