"""Transactions on a database, and a table of the application that handlers write to."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

from bus.messaging.ports.inbox import FactKey
from bus.messaging.store_address import StoreAddress
from bus.storage.sqlalchemy.database import Database
from bus.storage.sqlalchemy.engine import open_engine
from bus.storage.sqlalchemy.transactions import Transactions
from tests.databases import connected

KEY = FactKey("shelf", "library.returned", "", "library", "m-1")
LEASE = 30.0


class Clock:
    """A clock that a test sets."""

    now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


async def create_stock(connection: AsyncConnection) -> None:
    """Create the table `stock` of the application, with 0 copies of a book."""
    await connection.execute(text("DROP TABLE IF EXISTS stock"))
    await connection.execute(text("CREATE TABLE stock (book TEXT PRIMARY KEY, copies INTEGER)"))
    await connection.execute(text("INSERT INTO stock VALUES ('emma', 0)"))


@asynccontextmanager
async def process(address: StoreAddress, **options: Any) -> AsyncIterator[Transactions]:
    """Yield transactions with connections of their own, as in another process."""
    async with connected(address) as database:
        sessions = open_engine(lambda: address, name="handlers", statement_timeout=None)
        transactions = Transactions(database, sessions, **options)
        yield transactions
        await transactions.close()


async def add_copy(session: AsyncSession) -> None:
    """Count one copy more, as a handler that reads before it writes."""
    copies = await session.scalar(text("SELECT copies FROM stock"))
    await session.execute(text("UPDATE stock SET copies = :copies"), {"copies": (copies or 0) + 1})


async def copies_in(database: Database) -> int:
    """Return the number of copies that all handlers have counted."""

    async def work(connection: AsyncConnection) -> int:
        return int(await connection.scalar(text("SELECT copies FROM stock")) or 0)

    return await database.read(work)


async def rows_in(database: Database, table: str) -> int:
    async def work(connection: AsyncConnection) -> int:
        return int(await connection.scalar(text(f"SELECT count(*) FROM {table}")) or 0)

    return await database.read(work)
