"""The migrations of the store, by Alembic. `bus store upgrade` applies them.

Workers of the version before run while a migration is applied. So a migration only adds: a table, a
column that may be empty or has a default, or an index. Old code must work with the new tables. A
later version removes what no supported version uses, and raises `OLDEST_REVISION` to the revision
of the first version that works without it.

All migrations that are due are one transaction, and a lock lets a second command wait for the
first. On PostgreSQL a migration waits at most `LOCK_SECONDS` for a lock on a table, because all
other statements would wait behind it.
"""

from typing import Final

__all__ = ["HEAD", "LOCK_SECONDS", "OLDEST_REVISION", "VERSION_TABLE"]

HEAD: Final = "0001"
"""Revision of the tables that this version of the bus uses. A test compares it with the files."""
OLDEST_REVISION: Final = "0001"
"""Oldest revision of the bus that can use the tables of `HEAD`."""
VERSION_TABLE: Final = "bus_store_revision"
"""Table in which Alembic stores the revision."""
LOCK_SECONDS: Final = 5
