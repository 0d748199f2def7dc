"""New encryption of the stored messages after a rotation of the keys.

A worker can change a row at the same time. So a message is replaced only if it is still the one
that was read. A pass over the table reads in batches by the key of the rows, and locks no row.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from sqlalchemy import Column, Row, or_, select, tuple_, update
from sqlalchemy.ext.asyncio import AsyncConnection

from bus.errors import BusError, ConfigurationError
from bus.messaging.envelope import Envelope, from_stored_bytes, to_stored_bytes
from bus.messaging.jobs.store_report import ReencryptReport
from bus.security.encryption import PayloadCipher
from bus.storage.sqlalchemy.database import Database
from bus.storage.sqlalchemy.tables import inbox, jobs

__all__ = ["reencrypt"]

BATCH_ROWS = 20
"""Rows in a batch. Each can have three messages of several megabytes."""
MESSAGES: Sequence[tuple[tuple[Column[Any], ...], tuple[Column[Any], ...]]] = (
    ((jobs.c.id, jobs.c.submitter), (jobs.c.message, jobs.c.result, jobs.c.progress_update)),
    ((inbox.c.key,), (inbox.c.reply,)),
)
"""For each table with messages, the columns of its key and those with a message."""
UNKNOWN = "(unreadable)"


async def reencrypt(database: Database, cipher: PayloadCipher, *, is_dry: bool) -> ReencryptReport:
    """Encrypt the stored messages with the first key of a cipher, and return the numbers.

    Raises:
        ConfigurationError: The cipher has no keys.
        Unavailable: The database cannot be reached.
    """
    newest = cipher.newest_key
    if newest is None:
        raise ConfigurationError(
            "BUS_ENCRYPTION_KEYS is not set, so no message can be decrypted. Set it to the file "
            "with the old keys and the new one."
        )
    work = _Reencryption(database, cipher, newest, is_dry=is_dry)
    for key, columns in MESSAGES:
        await work.run(key, columns)
    return ReencryptReport(
        key=newest, messages=dict(work.keys), changed=work.changed, unreadable=work.unreadable
    )


class _Reencryption:
    """One pass over all tables."""

    def __init__(
        self, database: Database, cipher: PayloadCipher, newest: str, *, is_dry: bool
    ) -> None:
        self._database, self._cipher, self._newest = database, cipher, newest
        self._is_dry = is_dry
        self.keys: Counter[str] = Counter()
        self.changed = self.unreadable = 0

    async def run(self, key: tuple[Column[Any], ...], columns: tuple[Column[Any], ...]) -> None:
        """Encrypt the messages in the columns of one table."""
        last: tuple[Any, ...] | None = None
        while rows := await self._read(key, columns, last):
            for row in rows:
                place = tuple(row[: len(key)])
                for column, stored in zip(columns, row[len(key) :], strict=True):
                    if stored is not None and (new := self._encrypt(stored)) is not None:
                        await self._replace(key, place, column, stored, new)
            last = tuple(rows[-1][: len(key)])

    async def _read(
        self,
        key: tuple[Column[Any], ...],
        columns: tuple[Column[Any], ...],
        last: tuple[Any, ...] | None,
    ) -> Sequence[Row[Any]]:
        query = (
            select(*key, *columns)
            .where(or_(*(column.is_not(None) for column in columns)))
            .order_by(*key)
            .limit(BATCH_ROWS)
        )
        if last is not None:
            query = query.where(tuple_(*key) > last)

        async def work(connection: AsyncConnection) -> Sequence[Row[Any]]:
            return (await connection.execute(query)).all()

        return await self._database.read(work)

    def _encrypt(self, stored: bytes) -> bytes | None:
        """Return the new bytes of a message, or None if it does not change."""
        try:
            envelope = from_stored_bytes(stored)
            needed = self._cipher.key_of(envelope)
            if needed is None:
                return None
            self.keys[needed] += 1
            if needed == self._newest:
                return None
            new: Envelope = self._cipher.reencrypt(envelope)
        except BusError:
            self.unreadable += 1
            return None
        return None if self._is_dry else to_stored_bytes(new)

    async def _replace(
        self,
        key: tuple[Column[Any], ...],
        place: tuple[Any, ...],
        column: Column[Any],
        stored: bytes,
        new: bytes,
    ) -> None:
        statement = (
            update(column.table)
            .where(*(each == value for each, value in zip(key, place, strict=True)))
            .where(column == stored)
            .values({column: new})
        )

        async def work(connection: AsyncConnection) -> int:
            return (await connection.execute(statement)).rowcount

        self.changed += await self._database.write(work, is_single=True)
