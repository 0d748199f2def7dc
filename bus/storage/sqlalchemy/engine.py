"""The engine of a store: the pool of connections to SQLite or PostgreSQL."""

from collections.abc import Callable
from importlib import import_module
from typing import cast

from sqlalchemy.ext.asyncio import AsyncEngine

from bus.messaging.store_address import StoreAddress
from bus.storage.sqlalchemy.pool_options import MAX_OVERFLOW

__all__ = ["STATEMENT_SECONDS", "open_engine"]

STATEMENT_SECONDS = 30.0
"""Maximum seconds of one statement on PostgreSQL. Without a limit a half-open connection hangs."""


def open_engine(
    source: Callable[[], StoreAddress],
    *,
    name: str,
    statement_timeout: float | None = STATEMENT_SECONDS,
    max_overflow: int = MAX_OVERFLOW,
) -> AsyncEngine:
    """Return the engine for a database. It connects at its first use.

    Args:
        source: Function that returns the address. It is called for each connection, because the
            password can rotate. The kind and the place stay.
        name: Name of the connections, which the database shows to its administrators.
        statement_timeout: Maximum seconds of one statement on PostgreSQL. None: no limit.
        max_overflow: Maximum number of connections beside those that stay open. -1: no limit.

    Raises:
        ConfigurationError: The password cannot be read.
    """
    # Only the driver of this database is imported. The other one may not be installed.
    if source().kind == "sqlite":
        module = import_module("bus.storage.sqlalchemy.sqlite_engine")
        return cast("AsyncEngine", module.sqlite_engine(source, max_overflow))
    module = import_module("bus.storage.sqlalchemy.postgresql_engine")
    return cast(
        "AsyncEngine", module.postgresql_engine(source, name, statement_timeout, max_overflow)
    )
