"""Promises that only a database keeps: its own rules, its statements and its errors."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from functools import partial
from itertools import product
from typing import Any

import pytest
from sqlalchemy import event, select, text, update
from sqlalchemy.ext.asyncio import AsyncConnection

from bus.errors import Internal, Unavailable
from bus.messaging.jobs.pauses import Pause
from bus.messaging.jobs.records import Attempt
from bus.messaging.jobs.states import JOB_STATES, MOVES, JobState
from bus.messaging.store_address import StoreAddress
from bus.storage.sqlalchemy import database as database_module
from bus.storage.sqlalchemy.database import Database
from bus.storage.sqlalchemy.job_store import SqlJobStore
from bus.storage.sqlalchemy.pauses import add_pause, read_pauses
from bus.storage.sqlalchemy.tables import jobs as table
from tests.conformance.stores.made import (
    LEASE,
    QUEUE,
    Clock,
    claim_one,
    ended,
    new_job,
    progress,
    record_one,
    request,
)
from tests.databases import connected


@pytest.fixture
def store(database: Database) -> SqlJobStore:
    return SqlJobStore(database)


async def test_the_database_allows_only_the_moves_of_the_table(
    database: Database, store: SqlJobStore
) -> None:
    await record_one(store)

    async def row(connection: AsyncConnection) -> dict[str, Any]:
        return dict((await connection.execute(select(table))).one()._mapping)

    recorded = await database.read(row)

    async def force(connection: AsyncConnection, state: JobState) -> None:
        # A row is inserted in any state, as in a restored backup.
        await connection.execute(table.delete())
        await connection.execute(table.insert(), {**recorded, "state": state})

    async def move(connection: AsyncConnection, state: JobState) -> None:
        await connection.execute(update(table).values(state=state))

    allowed: dict[JobState, set[JobState]] = {}
    for old, new in product(JOB_STATES, JOB_STATES):
        await database.write(partial(force, state=old))
        allowed.setdefault(old, set())
        with suppress(Internal):
            await database.write(partial(move, state=new))
            allowed[old].add(new)
    assert allowed == MOVES


async def test_the_database_refuses_an_unknown_state(
    database: Database, store: SqlJobStore
) -> None:
    await record_one(store)

    async def replace(connection: AsyncConnection) -> None:
        row = (await connection.execute(select(table))).one()._mapping
        await connection.execute(table.insert(), {**row, "id": "a2", "state": "lost"})

    with pytest.raises(Internal, match="refuses a statement"):
        await database.write(replace)


@contextmanager
def counted(database: Database) -> Iterator[list[str]]:
    """Yield the statements that are executed, without those that begin and end transactions."""
    statements: list[str] = []

    def count(*arguments: object) -> None:
        if not str(arguments[2]).startswith("BEGIN"):
            statements.append(str(arguments[2]))

    engine = database.engine.sync_engine
    event.listen(engine, "before_cursor_execute", count)
    yield statements
    event.remove(engine, "before_cursor_execute", count)


async def test_a_batch_is_recorded_by_one_statement_and_each_step_of_a_run_by_at_most_two(
    database: Database, store: SqlJobStore
) -> None:
    most = 2 if database.is_sqlite else 1
    with counted(database) as statements:
        await store.record([new_job(f"a{number}") for number in range(200)])
        assert len(statements) == 1
    with counted(database) as statements:
        claimed = await store.claim(QUEUE, worker="w1", limit=200, lease=LEASE)
        assert len(claimed) == 200
        assert len(statements) <= most
    with counted(database) as statements:
        await store.renew([each.attempt_of for each in claimed], lease=LEASE)
        assert len(statements) <= most
    with counted(database) as statements:
        await store.end([ended(each.attempt_of, "succeeded") for each in claimed])
        assert len(statements) <= most


async def test_a_row_that_cannot_be_read_fails_and_the_others_run(
    database: Database, store: SqlJobStore
) -> None:
    key = await record_one(store)
    await record_one(store, id_="a2")

    async def damage(connection: AsyncConnection) -> None:
        await connection.execute(update(table).where(table.c.id == "a1").values(message=b"\x80"))

    await database.write(damage)
    claimed = await store.claim(QUEUE, worker="w1", limit=5, lease=LEASE)
    assert [each.attempt_of.key.id for each in claimed] == ["a2"]
    row = (await store.list())[-1]
    assert (row.key, row.state) == (key, "failed")
    assert row.failure is not None
    assert row.failure.code == "data_loss"


async def test_a_claim_returns_its_jobs_although_the_database_goes_away_after_it(
    database: Database, store: SqlJobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    await record_one(store)
    await record_one(store, id_="a2")

    async def damage(connection: AsyncConnection) -> None:
        await connection.execute(update(table).where(table.c.id == "a1").values(message=b"\x80"))

    async def away(_: object) -> None:
        raise Unavailable

    await database.write(damage)
    with monkeypatch.context() as patch:
        patch.setattr(store, "end", away)
        claimed = await store.claim(QUEUE, worker="w1", limit=5, lease=0)
    assert [each.attempt_of.key.id for each in claimed] == ["a2"]
    await store.claim(QUEUE, worker="w1", limit=5, lease=LEASE)
    assert {row.key.id: row.state for row in await store.list()} == {
        "a1": "failed",
        "a2": "running",
    }


async def test_an_error_has_no_value_of_a_row(database: Database, store: SqlJobStore) -> None:
    async def drop(connection: AsyncConnection) -> None:
        await connection.execute(text("ALTER TABLE bus_jobs RENAME TO bus_jobs_away"))

    async def restore(connection: AsyncConnection) -> None:
        await connection.execute(text("ALTER TABLE bus_jobs_away RENAME TO bus_jobs"))

    await database.write(drop)
    try:
        with pytest.raises((Unavailable, Internal)) as raised:
            await store.record([new_job("hunter2", body=b"hunter2")])
    finally:
        await database.write(restore)
    assert "hunter2" not in str(raised.value)
    assert raised.value.__cause__ is None


async def test_the_clock_of_the_database_is_used_without_a_clock_of_the_test(
    database: Database, store: SqlJobStore
) -> None:
    key = await record_one(store)
    await claim_one(store)
    found = await store.find(key)
    assert found is not None
    assert found.lease_until is not None
    assert found.started_at is not None
    assert found.recorded_at <= found.started_at
    assert found.lease_until == pytest.approx(found.started_at + LEASE)


async def test_an_end_in_a_transaction_of_the_caller_is_undone_with_it(
    database: Database, store: SqlJobStore
) -> None:
    await record_one(store)
    attempt = await claim_one(store)
    async with database.engine.connect() as connection:
        assert await store.end_in(connection, ended(attempt, "succeeded")) == "succeeded"
        await connection.rollback()
    assert await store.written_end(attempt) is None
    async with database.engine.connect() as connection:
        assert await store.end_in(connection, ended(attempt, "succeeded")) == "succeeded"
        await connection.commit()
    assert await store.written_end(attempt) == "succeeded"
    assert await store.written_end(Attempt(attempt.key, attempt.token + 1)) is None


@pytest.mark.parametrize("level", ["read committed", "repeatable read", "serializable"])
async def test_no_job_is_shared_or_lost_at_any_isolation_level(
    database: Database, address: StoreAddress, clock: Clock, level: str
) -> None:
    if database.is_sqlite and level != "serializable":
        pytest.skip("SQLite has only this level")
    async with at_level(database, level), connected(address) as first, connected(address) as second:
        stores = [SqlJobStore(first, clock=clock), SqlJobStore(second, clock=clock)]
        await stores[0].record([new_job(f"a{number}") for number in range(30)])
        shares = await asyncio.gather(
            *(run_all(stores[number % 2], f"w{number}") for number in range(4))
        )
        assert sum(shares) == 30


@asynccontextmanager
async def at_level(database: Database, level: str) -> AsyncIterator[None]:
    """Set the isolation level of new connections."""

    async def execute(connection: AsyncConnection, statement: str) -> None:
        await connection.execute(text(statement))

    if database.is_sqlite:
        yield
        return
    change = f"SET default_transaction_isolation = '{level}'"
    await database.write(partial(execute, statement=f"ALTER ROLE bus {change}"))
    try:
        yield
    finally:
        reset = "ALTER ROLE bus RESET default_transaction_isolation"
        await database.write(partial(execute, statement=reset))


async def run_all(store: SqlJobStore, worker: str) -> int:
    """Run all jobs, each with progress and a cancel request, and return their number."""
    done = 0
    while claimed := await store.claim(QUEUE, worker=worker, limit=2, lease=LEASE):
        for each in claimed:
            assert await store.report(each.attempt_of, progress(1))
            await store.cancel(each.attempt_of.key, request())
        ends = [ended(each.attempt_of, "succeeded") for each in claimed]
        assert await store.end(ends) == ["succeeded"] * len(ends)
        done += len(ends)
    return done


async def test_statements_about_the_same_jobs_do_not_wait_for_each_other_in_a_circle(
    store: SqlJobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A deadlock is an error at once. It would be hidden by a repetition after a second.
    monkeypatch.setattr(database_module, "MAX_ATTEMPTS", 1)
    for round_ in range(3):
        await store.record([new_job(f"{round_}-{number}") for number in range(150)])
        claimed = await store.claim(QUEUE, worker="w1", limit=150, lease=LEASE)
        attempts = [each.attempt_of for each in claimed]
        # A renewal has the order of the claims, and the ends have the order of the handlers.
        ends = [ended(attempt, "succeeded") for attempt in reversed(attempts)]
        _, states, _ = await asyncio.gather(
            store.renew(attempts, lease=LEASE), store.end(ends), store.renew(attempts, lease=LEASE)
        )
        assert states == ["succeeded"] * 150


async def test_instances_that_store_the_same_pause_at_the_same_time_all_succeed(
    database: Database,
) -> None:
    async def store_pause(by: str) -> None:
        pause = Pause(queue=QUEUE, by=by, reason="repair", at=5.0, until=9.0)
        await database.write(lambda each: add_pause(each, pause), is_single=True)

    await asyncio.gather(*map(store_pause, ("ann", "ben", "cat", "dan", "eve")))
    (stored,) = await database.read(lambda each: read_pauses(each, now=0.0))
    assert stored.by in {"ann", "ben", "cat", "dan", "eve"}
    assert (stored.queue, stored.reason, stored.until) == (QUEUE, "repair", 9.0)
