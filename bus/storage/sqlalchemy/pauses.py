"""Pauses of consumers that operators have requested."""

from collections.abc import Sequence

from sqlalchemy import delete, or_, select
from sqlalchemy.ext.asyncio import AsyncConnection

from bus.messaging.jobs.pauses import Pause
from bus.storage.sqlalchemy.instances import INSERTS
from bus.storage.sqlalchemy.tables import pauses
from bus.storage.sqlalchemy.texts import from_text, to_text

__all__ = ["add_pause", "read_pauses", "remove_pause"]


async def read_pauses(connection: AsyncConnection, *, now: float) -> Sequence[Pause]:
    """Return the pauses that have not ended, by queue."""
    rows = await connection.execute(
        select(pauses)
        .where(or_(pauses.c.until.is_(None), pauses.c.until > now))
        .order_by(pauses.c.queue)
    )
    return [
        Pause(
            queue=from_text(row.queue),
            by=from_text(row.by),
            reason=from_text(row.reason),
            at=row.at,
            until=row.until,
        )
        for row in rows
    ]


async def add_pause(connection: AsyncConnection, pause: Pause) -> None:
    """Store a pause. It replaces an earlier pause of the same queue."""
    values = {
        "by": to_text(pause.by),
        "reason": to_text(pause.reason),
        "at": pause.at,
        "until": pause.until,
    }
    # All instances of the service store an order at the same time. A delete and an insert would
    # fail in all of them except one.
    statement = INSERTS[connection.dialect.name](pauses).values(
        queue=to_text(pause.queue), **values
    )
    await connection.execute(
        statement.on_conflict_do_update(index_elements=[pauses.c.queue], set_=values)
    )


async def remove_pause(connection: AsyncConnection, queue: str) -> bool:
    """Remove the pause of a queue. Return False if there is none."""
    done = await connection.execute(delete(pauses).where(pauses.c.queue == to_text(queue)))
    return done.rowcount > 0
