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
from bus.storage.sqlalchemy.migrations import HEAD, LOCK_SECONDS, VERSION_TABLE
from bus.storage.sqlalchemy.tables import metadata, store

__all__ = [
    "check_identity",
    "check_store",
    "check_writable",
    "claim_store",
    "find_identity",
    "reported_errors",
]

RIGHTS = "SELECT, INSERT, UPDATE, DELETE"
# The catalog tells the rights also to a user without any.
FOUND_RIGHTS = text(
    """
    SELECT name, has_table_privilege(relation, 'SELECT') AS can_read,
        has_table_privilege(relation, 'INSERT') AND has_table_privilege(relation, 'UPDATE')
            AND has_table_privilege(relation, 'DELETE') AS can_write
    FROM (
        SELECT name, to_regclass(name) AS relation FROM unnest(CAST(:names AS text[])) AS name
    ) AS found WHERE relation IS NOT NULL
    """
)
USER = text("SELECT quote_ident(current_user)")


async def find_identity(database: Database) -> Identity:
    """Return the identity of a database, also if it has no tables of the bus.

    Raises:
        ConfigurationError: The user may not read it, or an operator must act.
        Unavailable: The database cannot be reached.
    """

    async def work(connection: AsyncConnection) -> Identity:
        if not database.is_sqlite:
            await _check_rights(connection, database.place, is_reading=True)
        return await read_identity(connection)

    async with reported_errors(database.place):
        return await database.run_once(work)


async def claim_store(database: Database, service: str) -> Identity:
    """Check the store, make the service its owner if it has none, and return its identity.

    Raises:
        ConfigurationError: The store cannot be used until an operator has acted.
        Unavailable: The database cannot be reached.
    """

    async def work(connection: AsyncConnection) -> Identity:
        if not database.is_sqlite:
            await connection.execute(text(f"SET LOCAL lock_timeout = '{LOCK_SECONDS}s'"))
            await _check_rights(connection, database.place, is_reading=True)
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
    identity = await find_identity(database)
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


async def _check_rights(
    connection: AsyncConnection, place: str, *, is_reading: bool = False
) -> None:
    """Check that the user may use each table. The table of the revision is only read.

    Args:
        connection: Connection to PostgreSQL.
        place: Address of the database for the text of an error.
        is_reading: True checks only that the user may read the identity of the store.

    Raises:
        ConfigurationError: A right is missing. The text has the statements that grant all rights.
    """
    names = {"names": [*metadata.tables, VERSION_TABLE]}
    rows = (await connection.execute(FOUND_RIGHTS, names)).all()
    readable = {row.name for row in rows if row.can_read}
    writable = {row.name for row in rows if row.can_write}
    tables = [row.name for row in rows if row.name != VERSION_TABLE]
    missing = [name for name in tables if name not in readable & writable]
    unread = [row.name for row in rows if row.name == VERSION_TABLE and not row.can_read]
    needed = {store.name, VERSION_TABLE} - readable if is_reading else {*missing, *unread}
    if not needed.intersection(row.name for row in rows):
        return
    user = (await connection.execute(USER)).scalar_one()
    grants = [
        f"GRANT {rights} ON {', '.join(on)} TO {user};"
        for rights, on in ((RIGHTS, missing), ("SELECT", unread))
        if on
    ]
    raise ConfigurationError(
        f"the store {place}: the user {user} lacks rights on {', '.join([*missing, *unread])}. "
        f"Run as the owner of the tables: {' '.join(grants)}"
    )
