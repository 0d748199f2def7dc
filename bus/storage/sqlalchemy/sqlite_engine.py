"""The engine for SQLite, by aiosqlite. Several processes of one machine can use one file."""

from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import aiosqlite
from sqlalchemy import Connection, event
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from bus.messaging.store_address import StoreAddress
from bus.storage.sqlalchemy.pool_options import IS_READING, POOL_OPTIONS

__all__ = ["BUSY_SECONDS", "sqlite_engine"]

BUSY_SECONDS = 10.0
"""Maximum seconds to wait for another process that writes to the file."""


def sqlite_engine(source: Callable[[], StoreAddress], max_overflow: int) -> AsyncEngine:
    """Return the engine; see `open_engine`."""

    async def connect(*_: Any, **__: Any) -> aiosqlite.Connection:
        # mode=rw never creates a file, so a wrong path is an error and not an empty store.
        connection = aiosqlite.connect(
            f"file:{quote(source().path or '')}?mode=rw",
            uri=True,
            timeout=BUSY_SECONDS,
            # The driver must not begin transactions by itself: see `_begin`.
            isolation_level=None,
        )
        # A process must be able to end, although a connection was not closed.
        thread = connection._thread  # noqa: SLF001 - as SQLAlchemy's own creator
        thread.daemon = True
        try:
            return await connection
        except BaseException:
            # The thread reports its end to the event loop, which must not be closed before that.
            thread.join()
            raise

    # SQLAlchemy chooses a pool for a file by this path, and `connect` opens the right one.
    engine = create_async_engine(
        "sqlite+aiosqlite:///file", async_creator=connect, max_overflow=max_overflow, **POOL_OPTIONS
    )
    event.listen(engine.sync_engine, "connect", _set_pragmas)
    event.listen(engine.sync_engine, "begin", _begin)
    return engine


def _set_pragmas(connection: Any, _: Any) -> None:
    cursor = connection.cursor()
    # Readers and the one writer do not block each other, also in different processes.
    cursor.execute("PRAGMA journal_mode = WAL")
    # A commit is on the disk when it returns. With NORMAL, the last ones can be lost.
    cursor.execute("PRAGMA synchronous = FULL")
    cursor.execute("PRAGMA foreign_keys = ON")
    cursor.close()


def _begin(connection: Connection) -> None:
    """Take the write lock at the beginning.

    A transaction that reads first, and takes the lock later, fails if another one has written.
    """
    is_reading = connection.get_execution_options().get(IS_READING, False)
    connection.exec_driver_sql("BEGIN" if is_reading else "BEGIN IMMEDIATE")
