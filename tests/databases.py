"""Databases of a store, with tables as its migrations create them."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from sqlalchemy.ext.asyncio import AsyncConnection

from bus.messaging.store_address import StoreAddress, parse_store
from bus.storage.sqlalchemy.database import Database
from bus.storage.sqlalchemy.engine import open_engine
from bus.storage.sqlalchemy.sqlite_file import create_sqlite_file
from bus.storage.sqlalchemy.tables import metadata

__all__ = ["address_of", "connected", "create_tables", "empty_tables", "new_sqlite_file"]


def address_of(url: str) -> StoreAddress:
    address = parse_store(url)
    assert address is not None
    return address


def new_sqlite_file(path: Path) -> StoreAddress:
    """Create an empty file, and return its address."""
    address = address_of(f"sqlite:///{path}")
    create_sqlite_file(address)
    return address


@asynccontextmanager
async def connected(address: StoreAddress) -> AsyncIterator[Database]:
    """Yield a database with connections of its own."""
    database = Database(open_engine(lambda: address, name="test"), address.place)
    yield database
    await database.close()


async def create_tables(address: StoreAddress) -> None:
    async with connected(address) as database:
        await database.write(lambda connection: connection.run_sync(metadata.create_all))


async def empty_tables(connection: AsyncConnection) -> None:
    for table in metadata.sorted_tables:
        await connection.execute(table.delete())
