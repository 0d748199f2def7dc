"""The database of a durable store, for the benchmarks."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from benchmarks.actor import RunFailed
from bus.messaging.store_address import parse_store
from bus.storage.sqlalchemy.database import Database
from bus.storage.sqlalchemy.engine import open_engine
from bus.storage.sqlalchemy.sqlite_file import create_sqlite_file
from bus.storage.sqlalchemy.upgrade import upgrade

__all__ = ["opened", "upgrade"]


@asynccontextmanager
async def opened(store: str) -> AsyncIterator[Database]:
    """Yield the database with an address as in `BUS_STORE`, and close it after the block."""
    address = parse_store(store)
    if address is None:
        raise RunFailed(f"{store} names no store")
    if address.kind == "sqlite":
        create_sqlite_file(address)
    engine = open_engine(lambda: address, name="bench", statement_timeout=None)
    database = Database(engine, address.place)
    try:
        yield database
    finally:
        await database.close()
