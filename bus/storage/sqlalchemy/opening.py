"""The checks of a store before a service uses it.

Each problem is an error with the command that corrects it, so that no worker starts with a store
that it cannot use.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from sqlalchemy import text, update
from sqlalchemy.ext.asyncio import AsyncConnection

from bus.errors import ConfigurationError
from bus.storage.sqlalchemy.database import DRIVER_ERRORS, Database, error_from, permanent_reason
from bus.storage.sqlalchemy.identity import Identity, read_identity
from bus.storage.sqlalchemy.migrations import HEAD, LOCK_SECONDS
from bus.storage.sqlalchemy.tables import metadata, store

__all__ = ["check_identity", "check_store", "check_writable", "claim_store", "reported_errors"]

RIGHTS = "SELECT, INSERT, UPDATE, DELETE"
MISSING_RIGHTS = text(
    """
    SELECT name FROM unnest(CAST(:names AS text[])) AS name
    WHERE NOT (has_table_privilege(name, 'SELECT') AND has_table_privilege(name, 'INSERT')
        AND has_table_privilege(name, 'UPDATE') AND has_table_privilege(name, 'DELETE'))
    """
)


async def claim_store(database: Database, service: str) -> Identity:
    """Check the store, make the service its owner if it has none, and return its identity.

    Raises:
        ConfigurationError: The store cannot be used until an operator has acted.
        Unavailable: The database cannot be reached.
    """

    async def work(connection: AsyncConnection) -> Identity:
        if not database.is_sqlite:
            await connection.execute(text(f"SET LOCAL lock_timeout = '{LOCK_SECONDS}s'"))
        identity = await read_identity(connection)
        check_identity(identity, service, database.place)
        if not database.is_sqlite:
            await _check_rights(connection, database.place)
        # It is a write in any case, so it shows whether the store is locked or read-only.
        await connection.execute(
            update(store).where(store.c.service.in_(["", service])).values(service=service)
        )
        return await read_identity(connection)

    async with reported_errors(database.place):
        identity = await database.run_once(work)
    # Another service can have claimed it at the same time.
    check_identity(identity, service, database.place)
    return identity


async def check_store(database: Database, service: str) -> Identity:
    """Check the store for the command of an operator, and return its identity.

    The command does not become the owner of the store.

    Args:
        database: The database.
        service: Service that must own the store. Empty: any service.

    Raises:
        ConfigurationError: The store is behind, ahead, or belongs to another service.
        Unavailable: The database cannot be reached.
    """
    async with reported_errors(database.place):
        identity = await database.run_once(read_identity)
    check_identity(identity, service or identity.service, database.place)
    return identity


@asynccontextmanager
async def reported_errors(place: str) -> AsyncIterator[None]:
    """Convert the errors of a driver inside the block.

    Raises:
        ConfigurationError: The error does not end by itself. The text has its remedy.
        Unavailable: The database cannot be reached now.
    """
    try:
        yield
    except DRIVER_ERRORS as error:
        reason = permanent_reason(error)
        if reason is None:
            raise error_from(error, place) from None
        raise ConfigurationError(f"the store {place}: {reason}.") from None


async def check_writable(database: Database) -> None:
    """Check that the user may write to each table, and that the store is not locked.

    Raises:
        ConfigurationError: The store is locked or read-only, or a right is missing.
        Unavailable: The database cannot be reached.
    """

    async def work(connection: AsyncConnection) -> None:
        if not database.is_sqlite:
            await connection.execute(text(f"SET LOCAL lock_timeout = '{LOCK_SECONDS}s'"))
            await _check_rights(connection, database.place)
        await connection.execute(update(store).values(service=store.c.service))

    async with reported_errors(database.place):
        await database.run_once(work)


def check_identity(identity: Identity, service: str, place: str) -> None:
    """Check the revision and the owner of a store.

    Raises:
        ConfigurationError: The store is behind, ahead, or belongs to another service.
    """
    subject = f"the store {place}"
    if identity.revision is None or identity.id is None:
        raise ConfigurationError(
            f"{subject} has no tables of the bus. Run `bus store upgrade` to create them."
        )
    if identity.is_older:
        raise ConfigurationError(
            f"{subject} has revision {identity.revision}, but this version of the bus needs "
            f"{HEAD}. Run `bus store upgrade`."
        )
    if identity.is_too_new:
        raise ConfigurationError(
            f"{subject} has revision {identity.revision} of a newer version of the bus. This "
            f"version can use revisions up to {HEAD}. Run `pip install --upgrade trunkline`."
        )
    if identity.service not in {"", service}:
        raise ConfigurationError(
            f"{subject} belongs to the service {identity.service!r}, but this process is "
            f"{service!r}. Each service has a store of its own: set BUS_STORE to another "
            "database, and run `bus store upgrade`."
        )


async def _check_rights(connection: AsyncConnection, place: str) -> None:
    """Check that the user may read and write each table.

    Raises:
        ConfigurationError: A right is missing. The text has the statement that grants it.
    """
    missing = (
        (await connection.execute(MISSING_RIGHTS, {"names": [*metadata.tables]})).scalars().all()
    )
    if missing:
        user = (await connection.execute(text("SELECT current_user"))).scalar_one()
        tables = ", ".join(missing)
        raise ConfigurationError(
            f"the store {place}: the user {user!r} may not read and write {tables}. "
            f"Run as the owner of the tables: GRANT {RIGHTS} ON {tables} TO {user}."
        )
