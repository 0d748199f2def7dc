"""The inbox: messages that were handled, and claims of messages that are handled now."""

import hashlib
import time
from collections.abc import Callable
from typing import Any

from sqlalchemy import ColumnElement, Double, and_, cast, delete, exists, func, literal, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

from bus.messaging.envelope import from_stored_bytes, to_stored_bytes
from bus.messaging.ports.inbox import FactKey, HandledMessage, MessageKey
from bus.storage.sqlalchemy.database import Database
from bus.storage.sqlalchemy.tables import inbox, inbox_renewals

__all__ = ["Clock", "SqlInbox", "columns_of", "digest_of", "insert_into_inbox", "now_in"]

Clock = Callable[[], float]

NO_TOKEN = 0
"""Token of a message that was added without a claim. The token of a claim is larger."""


class SqlInbox:
    """The handled messages of a service in its database, so that all its processes know them.

    Messages that a transactional handler has handled are in the same table.
    """

    def __init__(self, database: Database, *, clock: Clock | None = None) -> None:
        """Create the inbox.

        Args:
            database: Database with the tables of the store.
            clock: Function that returns seconds since the epoch. None: the clock of the server on
                PostgreSQL, and of this process on SQLite.
        """
        self._database, self._clock = database, clock

    async def find(self, key: MessageKey) -> HandledMessage | None:
        """Return the entry of a message. Return None if it was not handled, or was removed."""

        async def work(connection: AsyncConnection) -> HandledMessage | None:
            query = select(inbox.c.reply).where(
                inbox.c.key == digest_of(key), inbox.c.handled_at.is_not(None)
            )
            row = (await connection.execute(query)).first()
            if row is None:
                return None
            return HandledMessage(reply=None if row.reply is None else from_stored_bytes(row.reply))

        return await self._database.read(work)

    async def add(self, key: MessageKey, handled: HandledMessage) -> None:
        """Add the entry of a message. It replaces an earlier entry."""
        reply = None if handled.reply is None else to_stored_bytes(handled.reply)

        async def work(connection: AsyncConnection) -> None:
            now = now_in(self._database, self._clock)
            statement = insert_into_inbox(self._database).values(
                **columns_of(key), token=NO_TOKEN, lease_until=now, handled_at=now, reply=reply
            )
            await connection.execute(
                statement.on_conflict_do_update(
                    index_elements=[inbox.c.key],
                    set_={
                        "handled_at": statement.excluded.handled_at,
                        "reply": statement.excluded.reply,
                    },
                )
            )

        await self._database.write(work, is_single=True)

    async def prune(self, *, before: float, limit: int) -> int:
        """Remove entries of messages that were handled, or claimed and abandoned, before a time.

        A copy of such a message that arrives later is handled again. So the time must be so long
        ago that no copy can be alive.

        Args:
            before: Time in seconds since the epoch.
            limit: Maximum number of entries in this batch, at least 1.

        Returns:
            Number of removed entries. If it is `limit`, there can be more.
        """
        handled = inbox.c.handled_at < before
        renewed = exists().where(
            inbox_renewals.c.token == inbox.c.token, inbox_renewals.c.lease_until >= before
        )
        abandoned = and_(inbox.c.handled_at.is_(None), inbox.c.lease_until < before, ~renewed)

        async def work(connection: AsyncConnection) -> int:
            removed = 0
            for is_old in (handled, abandoned):
                batch = select(inbox.c.key).where(is_old).limit(limit - removed)
                # A claim can replace an abandoned one after the inner query has read it. The
                # repeated condition is checked again after the wait for the lock of the row.
                result = await connection.execute(
                    delete(inbox).where(inbox.c.key.in_(batch), is_old)
                )
                removed += result.rowcount
                if removed == limit:
                    return removed
            tokens = (
                select(inbox_renewals.c.token)
                .where(inbox_renewals.c.lease_until < before)
                .limit(limit)
            )
            await connection.execute(
                delete(inbox_renewals).where(inbox_renewals.c.token.in_(tokens))
            )
            return removed

        return await self._database.write(work)


def digest_of(key: FactKey | MessageKey) -> bytes:
    """Return the SHA-256 digest of a key. Its length is the same for all keys.

    The hashed text consists of netstrings, so no sender can move characters between the parts. A
    message key and a fact key have different numbers of parts, so they have different digests.
    """
    parts = (part.encode(errors="surrogatepass") for part in key)
    return hashlib.sha256(b"".join(b"%d:%b," % (len(part), part) for part in parts)).digest()


def columns_of(key: FactKey | MessageKey) -> dict[str, Any]:
    """Return the values of the columns that identify a message.

    Only the digest identifies it. The other columns are for operators.
    """
    parts = ("", key.queue, "", key.source, key.id) if isinstance(key, MessageKey) else (*key,)
    names = ("subscriber", "name", "subscription", "source", "id")
    return {"key": digest_of(key), **dict(zip(names, map(_storable, parts), strict=True))}


def _storable(text: str) -> str:
    """Return a text that a database can store: without NUL and lone surrogates."""
    return text.replace("\0", "\ufffd").encode(errors="replace").decode()


def insert_into_inbox(database: Database) -> Any:
    """Return an INSERT of the dialect, which has ON CONFLICT."""
    return sqlite.insert(inbox) if database.is_sqlite else postgresql.insert(inbox)


def now_in(database: Database, clock: Clock | None) -> ColumnElement[float]:
    """Return the present time as an expression, in seconds since the epoch.

    On PostgreSQL it is the time of the server, because the clocks of the machines can differ.
    Processes that share a file of SQLite run on one machine.
    """
    if clock is None and not database.is_sqlite:
        return cast(func.extract("epoch", func.clock_timestamp()), Double)
    return literal((clock or time.time)(), Double)
