"""The upgrade of a store to the tables of this version of the bus."""

import time
from collections.abc import Callable
from dataclasses import dataclass

from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, text
from sqlalchemy.ext.asyncio import AsyncConnection

from bus.messaging.ids import uuid4_factory
from bus.storage.sqlalchemy.database import Database
from bus.storage.sqlalchemy.identity import Identity, read_identity
from bus.storage.sqlalchemy.migrations import HEAD, LOCK_SECONDS, OLDEST_REVISION
from bus.storage.sqlalchemy.tables import store

__all__ = ["Upgrade", "upgrade"]

LOCK_KEY = 0x627573_73746F72
"""Key of the advisory lock of PostgreSQL that one upgrade holds."""
_new_id = uuid4_factory()


@dataclass(frozen=True, slots=True, kw_only=True)
class Upgrade:
    """The result of an upgrade."""

    before: Identity
    """Identity before. Its revision is None if the database had no tables of the bus."""
    after: Identity


async def upgrade(
    database: Database, service: str = "", *, clock: Callable[[], float] = time.time
) -> Upgrade:
    """Create or change the tables, in one transaction.

    If another process upgrades at the same time, this function waits for it, and changes nothing. A
    store with a newer revision does not change.

    Args:
        database: Database without a limit for the time of a statement.
        service: Owner of the store, if it has none yet. Empty: the first service that opens it.
        clock: Function that returns seconds since the epoch.

    Raises:
        Unavailable: The database cannot be reached, or a table is locked by another transaction.
        Internal: The database refuses a statement.
    """

    async def work(connection: AsyncConnection) -> Upgrade:
        if not database.is_sqlite:
            await connection.execute(text(f"SELECT pg_advisory_xact_lock({LOCK_KEY})"))
            await connection.execute(text(f"SET LOCAL lock_timeout = '{LOCK_SECONDS}s'"))
        before = await read_identity(connection)
        if before.is_newer:
            return Upgrade(before=before, after=before)
        if before.revision != HEAD:
            await connection.run_sync(_run_migrations)
        await _write_identity(connection, before, service, clock())
        return Upgrade(before=before, after=await read_identity(connection))

    return await database.write(work)


def _run_migrations(connection: Connection) -> None:
    config = Config()
    config.set_main_option("script_location", "bus.storage.sqlalchemy:migrations")
    config.attributes["connection"] = connection
    command.upgrade(config, "head")


async def _write_identity(
    connection: AsyncConnection, before: Identity, service: str, now: float
) -> None:
    if before.id is None:
        row = {
            "id": _new_id(),
            "service": service,
            "oldest_revision": OLDEST_REVISION,
            "created_at": now,
            "next_prune_at": 0.0,
        }
        await connection.execute(store.insert().values(row))
        return
    values = {"oldest_revision": OLDEST_REVISION}
    if service and not before.service:
        values["service"] = service
    await connection.execute(store.update().values(values))
