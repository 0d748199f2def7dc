"""One store of each kind. A test runs once for each kind, whose name is in the test's id."""

import asyncio
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from bus.messaging.ports.job_store import JobStore
from bus.messaging.store_address import StoreAddress
from bus.storage.memory.job_store import MemoryJobStore
from bus.storage.sqlalchemy.database import Database
from bus.storage.sqlalchemy.job_store import SqlJobStore
from bus.storage.sqlalchemy.notifications import NO_NOTIFICATIONS, NotifyingDatabase
from bus.storage.sqlalchemy.postgresql_engine import connect_directly
from tests.conformance.stores.made import Clock
from tests.databases import address_of, connected, create_tables, empty_tables, new_sqlite_file
from tests.postgres import PostgresCluster

DATABASES = ("sqlite", "postgresql")
STORES = ("memory", *DATABASES)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a test on each kind of store, or on each database if it needs one."""
    if "database" in metafunc.fixturenames and "jobs" not in metafunc.fixturenames:
        metafunc.parametrize("kind", DATABASES, indirect=True)
    elif "jobs" in metafunc.fixturenames:
        metafunc.parametrize("kind", STORES, indirect=True)


@pytest.fixture
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def clock() -> Clock:
    return Clock()


# To create a database with tables takes a tenth of a second, so it is done once for each kind.
@pytest.fixture(scope="session")
def postgres_address(postgres: PostgresCluster) -> StoreAddress:
    address = address_of(postgres.create_database())
    asyncio.run(create_tables(address))
    return address


@pytest.fixture(scope="session")
def sqlite_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("stores") / "jobs.db"
    asyncio.run(create_tables(new_sqlite_file(path)))
    return path


@pytest.fixture
def address(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> StoreAddress | None:
    """The address of a database with empty tables, or None for the store in memory."""
    if kind == "memory":
        return None
    if kind == "postgresql":
        address: StoreAddress = request.getfixturevalue("postgres_address")
        return address
    path = shutil.copy(request.getfixturevalue("sqlite_file"), tmp_path)
    return address_of(f"sqlite:///{path}")


@pytest.fixture
async def possible_database(address: StoreAddress | None) -> AsyncIterator[Database | None]:
    """The database of a test, or None for the store in memory."""
    if address is None:
        yield None
        return
    async with connected(address) as database:
        yield database
        if not database.is_sqlite:
            await database.write(empty_tables)


@pytest.fixture
def database(possible_database: Database) -> Database:
    """The database of a test that runs on no other kind of store."""
    return possible_database


@pytest.fixture
def memory(clock: Clock) -> MemoryJobStore:
    return MemoryJobStore(clock=clock)


def store_in(database: Database, address: StoreAddress | None, clock: Clock) -> SqlJobStore:
    """Return a store with notifications, if its database has them."""
    notifications = NO_NOTIFICATIONS
    if address is not None and address.kind == "postgresql":
        notifications = NotifyingDatabase(lambda: connect_directly(address, "test", 5))
    return SqlJobStore(database, clock=clock, notifications=notifications)


@pytest.fixture
async def jobs(
    possible_database: Database | None,
    address: StoreAddress | None,
    memory: MemoryJobStore,
    clock: Clock,
) -> AsyncIterator[JobStore]:
    """An empty store, in which the test sets the time."""
    if possible_database is None:
        yield memory
        return
    store = store_in(possible_database, address, clock)
    yield store
    await store.close()


@pytest.fixture
async def other(
    address: StoreAddress | None, memory: MemoryJobStore, clock: Clock, jobs: JobStore
) -> AsyncIterator[JobStore]:
    """The same store, as another process sees it with its own connections."""
    if address is None:
        yield memory
        return
    async with connected(address) as database:
        store = store_in(database, address, clock)
        yield store
        await store.close()
