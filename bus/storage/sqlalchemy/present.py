"""The present time of a store."""

import time
from typing import Final

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

__all__ = ["PRESENT", "present_time"]

PRESENT: Final = """
    coalesce(CAST(:now AS double precision),
        CAST(extract(epoch FROM clock_timestamp()) AS double precision))"""
"""Present time on PostgreSQL: the parameter `now`, or the database's clock if it is NULL.

All instances share the database's clock, so the clocks of their machines do not matter.
"""
_READ: Final = text(f"SELECT {PRESENT}")


async def present_time(connection: AsyncConnection, now: float | None) -> float:
    """Return `now`, or the time of the database if it is None, in seconds since the epoch.

    SQLite has the clock of this machine, as all its processes.
    """
    if now is not None:
        return now
    if connection.dialect.name == "sqlite":
        return time.time()
    return float((await connection.execute(_READ, {"now": None})).scalar_one())
