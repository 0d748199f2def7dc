"""The identity of a store: its id, its owner, and the revision of its tables."""

from dataclasses import dataclass

from sqlalchemy import Connection, column, inspect, select, table
from sqlalchemy.ext.asyncio import AsyncConnection

from bus.storage.sqlalchemy.migrations import HEAD, VERSION_TABLE
from bus.storage.sqlalchemy.tables import store

__all__ = ["Identity", "read_identity"]

VERSIONS = table(VERSION_TABLE, column("version_num"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """The id, the owner and the revision in a database."""

    id: str | None = None
    """Random id. None if the database has no tables of the bus."""
    service: str = ""
    """Owner. Empty if no service has opened the store yet."""
    revision: str | None = None
    """Revision of the tables. None if the database has no tables of the bus."""
    oldest_revision: str = ""
    """Oldest revision of the bus that can use the tables."""

    @property
    def is_older(self) -> bool:
        """True if the tables are missing, or must be upgraded for this version of the bus."""
        return self.revision is None or self.revision < HEAD

    @property
    def is_newer(self) -> bool:
        """True if a newer version of the bus has upgraded the tables."""
        return self.revision is not None and self.revision > HEAD

    @property
    def is_too_new(self) -> bool:
        """True if this version of the bus cannot use the tables of a newer version."""
        return self.is_newer and self.oldest_revision > HEAD


async def read_identity(connection: AsyncConnection) -> Identity:
    """Return the identity of the database, also if it has no tables of the bus."""
    if not await connection.run_sync(_has_tables):
        return Identity()
    revision = (await connection.execute(select(VERSIONS.c.version_num))).scalar()
    row = (
        await connection.execute(select(store.c.id, store.c.service, store.c.oldest_revision))
    ).one_or_none()
    if row is None:
        return Identity(revision=revision)
    return Identity(
        id=row.id, service=row.service, revision=revision, oldest_revision=row.oldest_revision
    )


def _has_tables(connection: Connection) -> bool:
    inspector = inspect(connection)
    return inspector.has_table(VERSION_TABLE) and inspector.has_table(store.name)
