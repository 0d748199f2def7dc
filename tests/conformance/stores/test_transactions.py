"""Tests of the transactions of handlers, on each database."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import suppress

import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError, InvalidRequestError
from sqlalchemy.ext.asyncio import AsyncSession

from bus.errors import Aborted, FailedPrecondition, Unavailable
from bus.messaging.store_address import StoreAddress
from bus.storage.sqlalchemy.database import Database
from bus.storage.sqlalchemy.transactions import Transactions
from tests.conformance.stores.transactional import (
    KEY,
    LEASE,
    Clock,
    add_copy,
    copies_in,
    create_stock,
    process,
    rows_in,
)
from tests.conformance.world import until

LEVELS = ("READ COMMITTED", "SERIALIZABLE")


@pytest.fixture
async def first(database: Database, address: StoreAddress) -> AsyncIterator[Transactions]:
    """The transactions of a process, with the table of the application."""
    await database.write(create_stock)
    async with process(address) as transactions:
        yield transactions


@pytest.fixture
async def second(first: Transactions, address: StoreAddress) -> AsyncIterator[Transactions]:
    """The transactions of another process."""
    async with process(address) as transactions:
        yield transactions


async def handle(transactions: Transactions, level: str | None = None) -> str:
    """Handle the message until it is handled, as the stages do. Return what happened last."""
    while True:
        try:
            async with transactions.begin(KEY, lease=LEASE) as transaction:
                if transaction is None:
                    return "skipped"
                while True:
                    try:
                        if level is not None:
                            await transaction.session.connection(
                                execution_options={"isolation_level": level}
                            )
                        await add_copy(transaction.session)
                        return "handled" if await transaction.commit() else "stale"
                    except Exception as error:
                        if not transaction.is_conflict(error):
                            raise
                        await transaction.restart()
        except Aborted:
            await asyncio.sleep(0.01)


async def test_a_commit_writes_the_effect_and_that_the_message_is_handled(
    first: Transactions, second: Transactions, database: Database
) -> None:
    assert await handle(first) == "handled"
    assert await handle(second) == "skipped"
    assert await copies_in(database) == 1


@pytest.mark.parametrize("level", LEVELS)
async def test_two_processes_with_the_same_message_have_one_effect(
    first: Transactions, second: Transactions, database: Database, level: str
) -> None:
    if level == "READ COMMITTED" and database.is_sqlite:
        level = "SERIALIZABLE"  # SQLite has no other level
    outcomes = await asyncio.gather(*(handle(each, level) for each in (first, second) * 3))
    assert sorted(outcomes) == ["handled"] + 5 * ["skipped"]
    assert await copies_in(database) == 1


async def test_while_a_handler_runs_another_process_is_refused_and_learns_how_long(
    first: Transactions, second: Transactions
) -> None:
    async with first.begin(KEY, lease=LEASE) as transaction:
        assert transaction is not None
        with pytest.raises(Aborted) as refusal:
            async with second.begin(KEY, lease=LEASE):
                pass
        assert refusal.value.retry_after == pytest.approx(LEASE, abs=5)


async def test_a_block_without_a_commit_has_no_effect_and_releases_the_claim(
    first: Transactions, second: Transactions, database: Database
) -> None:
    with suppress(KeyError):
        async with first.begin(KEY, lease=LEASE) as transaction:
            assert transaction is not None
            await add_copy(transaction.session)
            raise KeyError
    assert await copies_in(database) == 0
    assert await rows_in(database, "bus_inbox") == 0
    assert await handle(second) == "handled"


async def test_a_cancelled_handler_releases_its_claim(
    first: Transactions, second: Transactions, database: Database
) -> None:
    begun = asyncio.Event()

    async def wait() -> None:
        async with first.begin(KEY, lease=LEASE) as transaction:
            assert transaction is not None
            await add_copy(transaction.session)
            begun.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(wait())
    await begun.wait()
    task.cancel()
    await asyncio.wait([task])
    assert await handle(second) == "handled"
    assert await copies_in(database) == 1


async def test_a_stale_process_cannot_commit(
    first: Transactions, address: StoreAddress, database: Database
) -> None:
    async with (
        process(address, clock=lambda: time.time() + 2 * LEASE) as later,
        first.begin(KEY, lease=LEASE) as transaction,
    ):
        assert transaction is not None
        assert await handle(later) == "handled"
        await add_copy(transaction.session)
        assert await transaction.commit() is False
    assert await copies_in(database) == 1
    assert await handle(first) == "skipped"


async def test_a_claim_is_renewed_while_the_handler_runs(
    first: Transactions, address: StoreAddress, database: Database
) -> None:
    clock = Clock()
    async with (
        process(address, clock=clock) as slow,
        process(address, clock=clock) as other,
        slow.begin(KEY, lease=0.3) as transaction,
    ):
        assert transaction is not None
        clock.now += 3600  # the claim itself has expired
        await until(lambda: rows_in(database, "bus_inbox_renewals"), "a renewal", poll=0.02)
        with pytest.raises(Aborted):
            async with other.begin(KEY, lease=LEASE):
                pass
        assert await transaction.commit()


@pytest.mark.parametrize("level", LEVELS)
async def test_a_renewal_does_not_abort_the_transaction_of_the_handler(
    first: Transactions, database: Database, level: str
) -> None:
    if database.is_sqlite:
        level = "SERIALIZABLE"
    async with first.begin(KEY, lease=0.3) as transaction:
        assert transaction is not None
        await transaction.session.connection(execution_options={"isolation_level": level})
        await add_copy(transaction.session)
        if not database.is_sqlite:  # there a renewal waits for the handler, as a take-over does
            await until(lambda: rows_in(database, "bus_inbox_renewals"), "a renewal", poll=0.02)
        assert await transaction.commit()
    assert await copies_in(database) == 1


async def test_a_handler_that_does_not_use_its_session_makes_the_message_handled(
    first: Transactions, second: Transactions
) -> None:
    async with first.begin(KEY, lease=LEASE) as transaction:
        assert transaction is not None
        assert await transaction.commit()
    assert await handle(second) == "skipped"


# --- A handler that ends the transaction itself ---


async def call_commit(session: AsyncSession) -> None:
    await session.commit()


async def enter_begin(session: AsyncSession) -> None:
    await session.rollback()
    async with session.begin():
        await add_copy(session)


async def commit_connection(session: AsyncSession) -> None:
    await (await session.connection()).commit()


async def enter_session(session: AsyncSession) -> None:
    async with session:
        await add_copy(session)


async def reset(session: AsyncSession) -> None:
    await session.reset()


@pytest.mark.parametrize(
    "misuse", [call_commit, enter_begin, commit_connection, enter_session, reset]
)
async def test_a_handler_may_not_end_its_transaction_even_if_it_ignores_the_error(
    first: Transactions, database: Database, misuse: object
) -> None:
    async with first.begin(KEY, lease=LEASE) as transaction:
        assert transaction is not None
        await add_copy(transaction.session)
        with pytest.raises(FailedPrecondition, match="which the bus commits after the handler"):
            await misuse(transaction.session)  # type: ignore[operator]
        with pytest.raises(FailedPrecondition, match="which the bus commits after the handler"):
            await transaction.commit()
    assert await copies_in(database) == 0
    assert await rows_in(database, "bus_inbox") == 0


async def test_a_handler_may_not_choose_autocommit(first: Transactions) -> None:
    async with first.begin(KEY, lease=LEASE) as transaction:
        assert transaction is not None
        with pytest.raises(FailedPrecondition, match="AUTOCOMMIT"):
            await transaction.session.connection(
                execution_options={"isolation_level": "AUTOCOMMIT"}
            )


async def test_a_rollback_of_the_handler_discards_only_the_writes_before_it(
    first: Transactions, second: Transactions, database: Database
) -> None:
    async with first.begin(KEY, lease=LEASE) as transaction:
        assert transaction is not None
        await add_copy(transaction.session)
        await transaction.session.rollback()
        await transaction.session.execute(text("UPDATE stock SET copies = copies + 10"))
        assert await transaction.commit()
    assert await copies_in(database) == 10
    assert await handle(second) == "skipped"


async def insert_twice(session: AsyncSession) -> None:
    await session.execute(text("INSERT INTO stock VALUES ('emma', 1)"))


async def test_an_error_of_the_session_that_a_handler_ignores_fails_the_attempt(
    first: Transactions, database: Database
) -> None:
    async with first.begin(KEY, lease=LEASE) as transaction:
        assert transaction is not None
        await add_copy(transaction.session)
        with pytest.raises(IntegrityError):
            await insert_twice(transaction.session)
        with pytest.raises(FailedPrecondition, match="ignored an error of its session"):
            await transaction.commit()
    assert await copies_in(database) == 0


async def test_an_error_inside_of_a_savepoint_may_be_ignored(
    first: Transactions, database: Database
) -> None:
    async with first.begin(KEY, lease=LEASE) as transaction:
        assert transaction is not None
        await add_copy(transaction.session)
        with pytest.raises(IntegrityError):
            async with transaction.session.begin_nested():
                await insert_twice(transaction.session)
        assert await transaction.commit()
    assert await copies_in(database) == 1


async def test_a_session_cannot_be_used_after_its_handler(first: Transactions) -> None:
    async with first.begin(KEY, lease=LEASE) as transaction:
        assert transaction is not None
        session = transaction.session
        await transaction.commit()
    with pytest.raises(InvalidRequestError, match="closed"):
        await session.execute(text("SELECT 1"))


async def test_a_restart_discards_the_writes_and_keeps_the_claim(
    first: Transactions, second: Transactions, database: Database
) -> None:
    async with first.begin(KEY, lease=LEASE) as transaction:
        assert transaction is not None
        await add_copy(transaction.session)
        await transaction.restart()
        with pytest.raises(Aborted):
            async with second.begin(KEY, lease=LEASE):
                pass
        await add_copy(transaction.session)
        assert await transaction.commit()
    assert await copies_in(database) == 1


# --- A commit whose answer is lost ---


@pytest.mark.parametrize("is_lost_before", [True, False])
async def test_a_commit_without_an_answer_is_looked_up(
    first: Transactions,
    second: Transactions,
    database: Database,
    monkeypatch: pytest.MonkeyPatch,
    is_lost_before: bool,
) -> None:
    commit = AsyncSession.commit

    async def lose(session: AsyncSession) -> None:
        if not is_lost_before:
            await commit(session)
        raise ConnectionResetError

    async with first.begin(KEY, lease=LEASE) as transaction:
        assert transaction is not None
        await add_copy(transaction.session)
        with monkeypatch.context() as patch:
            patch.setattr(AsyncSession, "commit", lose)
            if is_lost_before:
                with pytest.raises(Unavailable, match="cannot be reached"):
                    await transaction.commit()
            else:
                assert await transaction.commit()
    assert await copies_in(database) == (0 if is_lost_before else 1)
    assert await handle(second) == ("handled" if is_lost_before else "skipped")
    assert await copies_in(database) == 1
