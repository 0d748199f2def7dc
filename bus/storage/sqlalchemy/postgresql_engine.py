"""The engine for PostgreSQL, by asyncpg.

asyncpg connects with the URL, so that the parameters of libpq have their usual meaning.
"""

from collections.abc import Callable
from typing import Any

import asyncpg
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from bus.messaging.store_address import StoreAddress
from bus.storage.sqlalchemy.pool_options import POOL_OPTIONS

__all__ = ["connect_directly", "postgresql_engine"]

CONNECT_SECONDS = 5.0
MAX_NAME_BYTES = 63
"""Maximum bytes of the name of a connection."""
SERVER_SETTINGS = {
    # The statements are small, and compiling them takes longer than running them.
    "jit": "off",
    # A generic plan that was made while a table was empty scans the whole table later.
    "plan_cache_mode": "force_custom_plan",
}


def postgresql_engine(
    source: Callable[[], StoreAddress],
    name: str,
    statement_timeout: float | None,
    max_overflow: int,
) -> AsyncEngine:
    """Return the engine; see `open_engine`."""

    async def connect(*_: Any, **__: Any) -> Any:
        return await connect_directly(source(), name, statement_timeout)

    return create_async_engine(
        "postgresql+asyncpg://",
        async_creator=connect,
        # The connection that was used last is used first, so the others can be closed.
        pool_use_lifo=True,
        max_overflow=max_overflow,
        **POOL_OPTIONS,
    )


async def connect_directly(
    address: StoreAddress, name: str, statement_timeout: float | None
) -> asyncpg.Connection:
    """Return a connection of asyncpg outside of the pool, for example for LISTEN.

    Args:
        address: Address with the current password.
        name: Name of the connection, which the database shows to its administrators.
        statement_timeout: Maximum seconds of one statement.
    """
    return await asyncpg.connect(
        address.url,
        timeout=CONNECT_SECONDS,
        command_timeout=statement_timeout,
        server_settings={
            **SERVER_SETTINGS,
            "application_name": name.encode()[:MAX_NAME_BYTES].decode(errors="ignore"),
        },
    )
