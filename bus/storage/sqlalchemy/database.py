"""Transactions on a store's database, which are repeated if that can help.

A transaction of the store can be repeated, because a repeated write has no second effect. So a dead
connection or a conflict with another transaction is not an error yet. All other errors of a driver
become errors of the bus. Their texts have no statement, no parameter and no value of a row.
"""

import asyncio
import errno
import random
import sqlite3
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from typing import TypeVar

from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from bus.errors import BusError, Internal, Unavailable
from bus.storage.sqlalchemy.pool_options import IS_READING

__all__ = ["DRIVER_ERRORS", "Database", "error_from", "is_conflict", "permanent_reason"]

T = TypeVar("T")
Work = Callable[[AsyncConnection], Awaitable[T]]

MAX_ATTEMPTS = 20
FIRST_DELAY, LONGEST_DELAY = 0.01, 0.2
"""Seconds before a repetition."""
CONFLICTS = frozenset({"40001", "40P01"})
"""SQLSTATE of a serialization failure and of a deadlock. The transaction had no effect."""
SQLITE_CONFLICTS = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED})
"""Primary result codes of SQLite for a lock of another transaction."""
DRIVER_ERRORS = (SQLAlchemyError, sqlite3.Error, OSError, TimeoutError)
"""Errors of a database. The drivers raise those of a connect without SQLAlchemy's class."""
REASONS = {
    "28P01": "it refuses the password. Check BUS_STORE, or BUS_STORE_PASSWORD_FILE",
    "28000": "it refuses the user. Check BUS_STORE, and pg_hba.conf",
    "3D000": "the database does not exist. Create it, or correct BUS_STORE",
    "42P01": "a table is missing. Run `bus store check`",
    "42703": "a column is missing. Run `bus store check`",
    "42501": "the user lacks a right. Run `bus store check`, or use the owner of the tables",
    "25006": "it is read-only. Use the address of the primary server",
    "53300": "it has too many connections. Raise max_connections, or start fewer processes",
    "40001": "other transactions have changed the same rows for too long. Try again",
    "40P01": "other transactions have locked the same rows for too long. Try again",
    "57P01": "it is stopping. The bus connects again",
    "57P03": "it is starting. The bus connects again",
    "55P03": "another transaction has locked its tables for too long. End it, or wait for it",
    "57014": "a statement took too long. Check its load and its locks",
}
"""Texts by SQLSTATE."""
PERMANENT = frozenset({"28P01", "28000", "3D000", "42P01", "42703", "42501", "25006", "55P03"})
"""SQLSTATE of the errors that do not end by themselves. They stop the start of a service."""
SQLITE_REASONS = {
    sqlite3.SQLITE_BUSY: "another process has locked it for too long. Run `bus store check`",
    sqlite3.SQLITE_LOCKED: "another process has locked it for too long. Run `bus store check`",
    sqlite3.SQLITE_READONLY: "it is read-only. Make the file and its folder writable",
    sqlite3.SQLITE_CANTOPEN: "the file cannot be opened. Run `bus store upgrade` to create it",
    sqlite3.SQLITE_FULL: "the disk is full. Free space on it",
    sqlite3.SQLITE_CORRUPT: "the file is damaged. Restore a backup",
    sqlite3.SQLITE_NOTADB: "the file is not a database of SQLite. Correct BUS_STORE",
    sqlite3.SQLITE_IOERR: "the file cannot be read or written. Check its disk",
}
"""Texts by the primary result code of SQLite. None of these errors ends by itself at a start."""


class Database:
    """The database of a store, as its parts use it."""

    def __init__(self, engine: AsyncEngine, place: str) -> None:
        """Wrap an engine.

        Args:
            engine: Engine, as `open_engine` returns it.
            place: Address of the database for error texts, without user and password.
        """
        self.engine, self.place = engine, place
        self.is_sqlite = engine.dialect.name == "sqlite"
        # SQLite has one writer. Those of this process wait here, and not in the file's lock, where
        # they would poll.
        self._writing = asyncio.Lock() if self.is_sqlite else None

    async def write(self, work: Work[T], *, is_single: bool = False) -> T:
        """Run a function in a transaction, commit, and return its result.

        Args:
            work: Function that executes statements. It is called again after a conflict or a dead
                connection, so it must have no other effect.
            is_single: True if `work` executes one statement. PostgreSQL then needs one round trip
                instead of three.

        Raises:
            Unavailable: The database cannot be reached, or is too busy.
            Internal: The database refuses the statement or its values.
        """
        return await self._repeat(work, is_single=is_single)

    async def read(self, work: Work[T]) -> T:
        """Run a function that only reads, and return its result; see `write`."""
        return await self._repeat(work, is_reading=True)

    async def run_once(self, work: Work[T]) -> T:
        """Run a function in a transaction, without a repetition. Errors are those of the driver."""
        return await self._run(work, is_single=False, is_reading=False)

    def reset(self) -> None:
        """Forget the connections of another event loop or of a parent process, without a close."""
        self.engine.sync_engine.dispose(close=False)
        self._writing = asyncio.Lock() if self.is_sqlite else None

    async def close(self) -> None:
        """Close all connections."""
        await self.engine.dispose()

    async def _repeat(
        self, work: Work[T], *, is_single: bool = False, is_reading: bool = False
    ) -> T:
        for attempt in range(1, MAX_ATTEMPTS + 1):
            try:
                return await self._run(work, is_single=is_single, is_reading=is_reading)
            except DRIVER_ERRORS as error:
                if attempt == MAX_ATTEMPTS or not _can_help(error, attempt):
                    raise error_from(error, self.place) from None
            delay = min(FIRST_DELAY * 2**attempt, LONGEST_DELAY)
            await asyncio.sleep(delay * random.uniform(0.5, 1))  # noqa: S311 - not a secret
        raise AssertionError

    async def _run(self, work: Work[T], *, is_single: bool, is_reading: bool) -> T:
        async with AsyncExitStack() as stack:
            if self._writing is not None and not is_reading:
                await stack.enter_async_context(self._writing)
            connection = await stack.enter_async_context(self.engine.connect())
            if is_reading:
                await connection.execution_options(**{IS_READING: True})
            if not self.is_sqlite:
                # The parts of a store lock the rows that they change. A stricter level, which the
                # user can have by default, would only cause conflicts.
                is_one = is_single or is_reading
                level = "AUTOCOMMIT" if is_one else "READ COMMITTED"
                await connection.execution_options(isolation_level=level)
            result = await work(connection)
            await connection.commit()
            return result


def _can_help(error: BaseException, attempt: int) -> bool:
    """Return True if a repetition of the transaction can help.

    A dead connection is one that was in the pool while the database restarted. SQLAlchemy discards
    all connections of the pool with it. So one repetition shows whether the database is back.
    """
    if _sqlstate(error) in CONFLICTS:
        return True
    return isinstance(error, DBAPIError) and error.connection_invalidated and attempt == 1


def is_conflict(error: BaseException) -> bool:
    """Return True if concurrent work caused an error: a repeated transaction may succeed."""
    return _sqlstate(error) in CONFLICTS or _sqlite_code(error) in SQLITE_CONFLICTS


def error_from(error: BaseException, place: str) -> BusError:
    """Return the error of the bus for an error of a driver, without values of the error.

    Args:
        error: Error that SQLAlchemy or a driver raised.
        place: Address of the database, without user and password.
    """
    state, code = _sqlstate(error), _sqlite_code(error)
    subject = f"the store {place}"
    if reason := REASONS.get(state or "") or SQLITE_REASONS.get(code):
        return Unavailable(f"{subject}: {reason}.")
    if state is not None and state[:2] in {"22", "23", "42"}:
        return Internal(f"{subject} refuses a statement (SQLSTATE {state}). Report this error.")
    if code in {sqlite3.SQLITE_CONSTRAINT, sqlite3.SQLITE_ERROR, sqlite3.SQLITE_TOOBIG}:
        return Internal(f"{subject} refuses a statement (SQLite, code {code}). Report this error.")
    if isinstance(error, TimeoutError):
        return Unavailable(f"{subject}: it did not answer in time. Check it and the network.")
    return Unavailable(
        f"{subject}: it cannot be reached ({_name(error)}). "
        "Check the host and the port in BUS_STORE, and that the database server runs."
    )


def permanent_reason(error: BaseException) -> str | None:
    """Return the problem and its remedy if an operator must act. Return None for other errors.

    Args:
        error: Error that SQLAlchemy or a driver raised.
    """
    state = _sqlstate(error)
    if state is not None:
        return REASONS[state] if state in PERMANENT else None
    return SQLITE_REASONS.get(_sqlite_code(error))


def _sqlstate(error: BaseException) -> str | None:
    for each in _chain(error):
        if isinstance(state := getattr(each, "sqlstate", None), str):
            return state
    return None


def _sqlite_code(error: BaseException) -> int:
    """Return the primary result code of SQLite, or -1."""
    for each in _chain(error):
        if isinstance(code := getattr(each, "sqlite_errorcode", None), int):
            return code & 0xFF
    return -1


def _name(error: BaseException) -> str:
    """Return the name of the system's error, or of the class of the first error."""
    first = list(_chain(error))[-1]
    number = getattr(first, "errno", None)
    return errno.errorcode.get(number or 0) or type(first).__name__


def _chain(error: BaseException) -> list[BaseException]:
    """Return an error and those that it wraps, without a cycle."""
    found: list[BaseException] = []
    following: BaseException | None = error
    while following is not None and following not in found:
        found.append(following)
        wrapped = following.orig if isinstance(following, DBAPIError) else None
        following = wrapped or following.__cause__
    return found
