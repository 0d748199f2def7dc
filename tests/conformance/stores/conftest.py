"""One store of each kind. A test runs once for each kind, whose name is in the test's id."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from sqlalchemy.ext.asyncio import AsyncConnection

from bus.messaging.ports.job_store import JobStore
from bus.messaging.store_address import StoreAddress, parse_store
from bus.storage.memory.job_store import MemoryJobStore
from bus.storage.sqlalchemy.database import Database
from bus.storage.sqlalchemy.engine import open_engine
from bus.storage.sqlalchemy.job_store import SqlJobStore
from bus.storage.sqlalchemy.notifications import NO_NOTIFICATIONS, NotifyingDatabase
from bus.storage.sqlalchemy.postgresql_engine import connect_directly
from bus.storage.sqlalchemy.sqlite_file import create_sqlite_file
from bus.storage.sqlalchemy.tables import metadata
from tests.conformance.stores.made import Clock
from tests.postgres import PostgresCluster

DATABASES = ("sqlite", "postgresql")
STORES = ("memory", *DATABASES)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a test on each kind of store, or on each database if it needs one."""
    if "database" in metafunc.fixturenames and "jobs" not in metafunc.fixturenames:
        metafunc.parametrize("kind", DATABASES, indirect=True)
    elif "jobs" in metafunc.fixturenames:
        metafunc.parametrize("kind", STORES, indirect=True)


def address_of(url: str) -> StoreAddress:
    address = parse_store(url)
    assert address is not None
    return address


async def create_tables(connection: AsyncConnection) -> None:
    """Create the tables that are missing."""
    await connection.run_sync(metadata.create_all)


async def empty_tables(connection: AsyncConnection) -> None:
    for table in metadata.sorted_tables:
        await connection.execute(table.delete())


@pytest.fixture
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(scope="session")
def shared_url(postgres: PostgresCluster) -> str:
    """The URL of a database for all these tests: to create one takes a tenth of a second."""
    return postgres.create_database()


@pytest.fixture
def address(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> StoreAddress | None:
    """The address of a database, or None for the store in memory."""
    if kind == "memory":
        return None
    if kind == "postgresql":
        return address_of(request.getfixturevalue("shared_url"))
    address = address_of(f"sqlite:///{tmp_path / 'jobs.db'}")
    create_sqlite_file(address)
    return address


@asynccontextmanager
async def connected(address: StoreAddress) -> AsyncIterator[Database]:
    database = Database(open_engine(lambda: address, name="test"), address.place)
    yield database
    await database.close()


@pytest.fixture
async def tables(address: StoreAddress | None) -> AsyncIterator[None]:
    """Empty tables."""
    if address is None:
        yield
        return
    async with connected(address) as database:
        await database.write(create_tables)
        yield
        await database.write(empty_tables)


@pytest.fixture
async def database(tables: None, address: StoreAddress) -> AsyncIterator[Database]:
    """A database with empty tables."""
    async with connected(address) as database:
        yield database


@pytest.fixture
def memory(clock: Clock) -> MemoryJobStore:
    return MemoryJobStore(clock=clock)


@asynccontextmanager
async def opened(
    address: StoreAddress | None, memory: MemoryJobStore, clock: Clock
) -> AsyncIterator[JobStore]:
    """Yield a store with connections of its own, as in another process."""
    if address is None:
        yield memory
        return
    notifications = NO_NOTIFICATIONS
    if address.kind == "postgresql":
        notifications = NotifyingDatabase(lambda: connect_directly(address, "test", 5))
    async with connected(address) as database:
        store = SqlJobStore(database, clock=clock, notifications=notifications)
        yield store
        await store.close()


@pytest.fixture
async def jobs(
    tables: None, address: StoreAddress | None, memory: MemoryJobStore, clock: Clock
) -> AsyncIterator[JobStore]:
    """An empty store, in which the test sets the time."""
    async with opened(address, memory, clock) as store:
        yield store


@pytest.fixture
async def other(
    tables: None, address: StoreAddress | None, memory: MemoryJobStore, clock: Clock
) -> AsyncIterator[JobStore]:
    """The same store, as another process sees it."""
    async with opened(address, memory, clock) as store:
        yield store
