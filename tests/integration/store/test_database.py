"""Transactions on SQLite and PostgreSQL, also if the database goes away."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from bus.errors import Internal, Unavailable
from bus.storage.sqlalchemy.database import Database
from bus.storage.sqlalchemy.engine import open_engine
from tests.integration.store.conftest import address_of
from tests.polling import BRIEF, until
from tests.postgres import PostgresCluster

SECRET = "hunter2"


def database_at(url: str) -> Database:
    address = address_of(url)
    return Database(open_engine(lambda: address, name="test"), address.place)


@pytest.fixture
async def database(store_url: str) -> AsyncIterator[Database]:
    database = database_at(store_url)
    yield database
    await database.close()


async def create(connection: AsyncConnection) -> None:
    await connection.execute(text("CREATE TABLE numbers (number INTEGER PRIMARY KEY, word TEXT)"))


async def add(database: Database, number: int, *, word: str = "") -> None:
    async def insert(connection: AsyncConnection) -> None:
        await connection.execute(
            text("INSERT INTO numbers VALUES (:number, :word)"), {"number": number, "word": word}
        )

    await database.write(insert, is_single=True)


async def count(database: Database) -> int:
    async def select(connection: AsyncConnection) -> int:
        return int((await connection.execute(text("SELECT count(*) FROM numbers"))).scalar_one())

    return await database.read(select)


async def more(number: Callable[[], int], most: int) -> None:
    """Return when a number has grown by `most`."""
    target = number() + most
    await until(lambda: number() >= target, f"{most} more", poll=BRIEF)


async def test_a_transaction_that_raises_an_error_has_no_effect(database: Database) -> None:
    async def fail(connection: AsyncConnection) -> None:
        await connection.execute(text("INSERT INTO numbers VALUES (1, '')"))
        raise KeyError

    await database.write(create)
    with pytest.raises(KeyError):
        await database.write(fail)
    assert await count(database) == 0


async def test_an_error_of_the_database_shows_no_value(database: Database) -> None:
    await database.write(create)
    await add(database, 1, word=SECRET)
    with pytest.raises(Internal, match="refuses a statement") as caught:
        await add(database, 1, word=SECRET)
    assert SECRET not in f"{caught.value!r} {caught.value.__cause__}"


async def test_a_missing_table_names_the_command_that_shows_why(database: Database) -> None:
    with pytest.raises((Unavailable, Internal), match=r"bus store check|refuses"):
        await count(database)


async def test_transactions_at_the_same_time_lose_no_change(database: Database) -> None:
    async def increase(connection: AsyncConnection) -> None:
        found = await connection.execute(text("SELECT number FROM numbers"))
        number = found.scalar_one()
        if not database.is_sqlite:
            await connection.execute(text("SELECT pg_sleep(0.01)"))
        await connection.execute(text("UPDATE numbers SET number = :n"), {"n": number + 1})

    async def serialized(connection: AsyncConnection) -> None:
        if not database.is_sqlite:
            await connection.execute(text("SET TRANSACTION ISOLATION LEVEL SERIALIZABLE"))
        await increase(connection)

    await database.write(create)
    await add(database, 0)
    # A conflict is repeated a few times, so a few transactions at once always succeed.
    await asyncio.gather(*(database.write(serialized) for _ in range(4)))

    async def select(connection: AsyncConnection) -> int:
        return int((await connection.execute(text("SELECT number FROM numbers"))).scalar_one())

    assert await database.read(select) == 4


async def test_a_restart_of_postgresql_under_load_costs_clear_errors_and_nothing_after_it(
    private_postgres: PostgresCluster,
) -> None:
    database = database_at(private_postgres.create_database())
    errors: list[BaseException] = []
    numbers = iter(range(100_000))
    added = 0
    ends = asyncio.Event()

    async def load() -> None:
        nonlocal added
        while not ends.is_set():
            try:
                await add(database, next(numbers))
                added += 1
            except Unavailable as error:
                errors.append(error)
                await asyncio.sleep(0.02)

    try:
        await database.write(create)
        tasks = [asyncio.create_task(load()) for _ in range(4)]
        for end in (private_postgres.kill, private_postgres.shut_down):
            await more(lambda: added, 20)
            end()
            await more(lambda: len(errors), 4)
            private_postgres.start()
        await more(lambda: added, 20)
        ends.set()
        await asyncio.gather(*tasks)
        # What was reported as written is there. An error can hide a write.
        assert added <= await count(database) <= added + len(errors)
        assert "the store postgresql://127.0.0.1:" in str(errors[0])
    finally:
        await database.close()


async def test_connections_that_a_restart_has_broken_cause_no_error(
    private_postgres: PostgresCluster,
) -> None:
    database = database_at(private_postgres.create_database())
    try:
        await database.write(create)
        await asyncio.gather(*(add(database, number) for number in range(5)))  # fills the pool
        private_postgres.shut_down()
        private_postgres.start()
        await asyncio.gather(*(add(database, number) for number in range(5, 15)))
        assert await count(database) == 15
    finally:
        await database.close()


async def test_a_database_that_is_away_is_unavailable_and_comes_back(
    private_postgres: PostgresCluster,
) -> None:
    database = database_at(private_postgres.create_database())
    try:
        await database.write(create)
        private_postgres.shut_down()
        with pytest.raises(Unavailable, match=r"cannot be reached \(ECONNREFUSED\)"):
            await count(database)
        private_postgres.start()
        assert await count(database) == 0
    finally:
        await database.close()


async def test_a_reader_of_sqlite_does_not_wait_for_a_writer(sqlite_url: str) -> None:
    database = database_at(sqlite_url)
    await database.write(create)
    path = address_of(sqlite_url).path
    assert path is not None
    other = sqlite3.connect(path, isolation_level=None)
    try:
        other.execute("BEGIN IMMEDIATE")
        other.execute("INSERT INTO numbers VALUES (1, '')")
        assert await asyncio.wait_for(count(database), 5) == 0
        waiting = asyncio.create_task(add(database, 2))
        await asyncio.sleep(0)
        other.execute("COMMIT")
        await asyncio.wait_for(waiting, 5)
        assert await count(database) == 2
    finally:
        other.close()
        await database.close()


async def test_a_file_of_sqlite_that_does_not_exist_is_not_created(tmp_path: Path) -> None:
    database = database_at(f"sqlite:///{tmp_path / 'none.db'}")
    with pytest.raises(Unavailable, match=r"cannot be opened\. Run `bus store upgrade`"):
        await count(database)
    await database.close()
    assert not (tmp_path / "none.db").exists()
