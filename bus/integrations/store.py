"""Tables of an application in the store of its service (`BUS_STORE`).

A transactional handler writes to these tables with its session. Other handlers read them with an
engine of this module. It needs the extra `store` or `postgres`.
"""

from collections.abc import Callable
from contextlib import suppress

from sqlalchemy import Connection, MetaData
from sqlalchemy.exc import IntegrityError, OperationalError, ProgrammingError
from sqlalchemy.ext.asyncio import AsyncEngine

from bus.errors import ConfigurationError
from bus.messaging.store_address import StoreAddress
from bus.settings.store_settings import StoreSettings
from bus.storage.sqlalchemy.engine import open_engine
from bus.storage.sqlalchemy.pool_options import IS_READING

__all__ = ["create_missing_tables", "store_engine"]


def store_engine(service: str, *, is_reading: bool = False) -> AsyncEngine:
    """Return an engine for the database of a service's store. It connects at its first use.

    The caller closes the engine with `await engine.dispose()`.

    Args:
        service: Name of the service, which replaces `{service}` in `BUS_STORE`.
        is_reading: True for an engine that only reads. On SQLite it does not wait for a writer.

    Raises:
        ConfigurationError: The service has no store, or its password cannot be read.
    """
    engine = open_engine(_source_of(service), name=f"{service} tables")
    return _reading(engine) if is_reading else engine


async def create_missing_tables(engine: AsyncEngine, tables: MetaData) -> None:
    """Create the tables that do not exist. Several processes can do it at the same time.

    Args:
        engine: Engine that writes.
        tables: The tables of the application. Their names do not begin with `bus_`.

    Raises:
        ConfigurationError: The user of the database may not create tables.
    """
    # Another process can create a table between the check and the statement of this one.
    with suppress(IntegrityError, OperationalError, ProgrammingError):
        async with engine.begin() as connection:
            await connection.run_sync(tables.create_all)
    async with _reading(engine).connect() as connection:
        missing = await connection.run_sync(_missing, tables)
    if missing:
        raise ConfigurationError(
            f"the store has no table {', '.join(missing)}, and its user cannot create it. "
            "Let the owner of the database start the service once."
        )


def _reading(engine: AsyncEngine) -> AsyncEngine:
    """Return an engine with the same connections that takes no write lock on SQLite."""
    return engine.execution_options(**{IS_READING: True})


def _missing(connection: Connection, tables: MetaData) -> list[str]:
    return [
        table.name
        for table in tables.sorted_tables
        if not connection.dialect.has_table(connection, table.name)
    ]


def _source_of(service: str) -> Callable[[], StoreAddress]:
    settings = StoreSettings()

    def source() -> StoreAddress:
        address = settings.store_address_of(service)
        if address is None:
            raise ConfigurationError("BUS_STORE is not set. Set it to the URL of a database.")
        return address

    return source
