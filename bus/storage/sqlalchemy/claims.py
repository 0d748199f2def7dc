"""Claims of messages in the inbox: one process at a time may handle a message."""

import secrets
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import and_, delete, exists, func, literal, or_, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

from bus.errors import Aborted
from bus.messaging.ports.inbox import FactKey
from bus.storage.sqlalchemy.database import Database
from bus.storage.sqlalchemy.inbox import Clock, columns_of, digest_of, insert_into_inbox, now_in
from bus.storage.sqlalchemy.tables import inbox, inbox_renewals

__all__ = ["Claim", "Claims"]


@dataclass(frozen=True, slots=True)
class Claim:
    """The right of this process to handle one message, until its lease has expired."""

    key: bytes
    token: int
    """Random number. Another process that takes the message over writes another one."""


class Claims:
    """The claims in the database of a service."""

    def __init__(self, database: Database, *, clock: Clock | None = None) -> None:
        """Create the object. `clock` is as that of `SqlInbox`."""
        self._database, self._clock = database, clock

    async def claim(self, key: FactKey, *, lease: float) -> Claim | None:
        """Claim a message for `lease` seconds. Return None if it was handled.

        A claim with an expired lease is replaced. All this is one statement.

        Raises:
            Aborted: Another process has the claim. `retry_after` is the rest of its lease.
            Unavailable: The database cannot be reached.
        """
        claim = Claim(digest_of(key), secrets.randbits(62) + 1)

        async def work(connection: AsyncConnection) -> "tuple[float | None, float] | None":
            now = now_in(self._database, self._clock)
            statement = insert_into_inbox(self._database).values(
                **columns_of(key), token=claim.token, lease_until=now + lease
            )
            renewed = exists().where(
                inbox_renewals.c.token == inbox.c.token, inbox_renewals.c.lease_until >= now
            )
            expired = and_(inbox.c.lease_until < now, ~renewed)
            statement = statement.on_conflict_do_update(
                index_elements=[inbox.c.key],
                set_={
                    "token": statement.excluded.token,
                    "lease_until": statement.excluded.lease_until,
                },
                # The own token is there if this statement is repeated after a lost connection.
                where=and_(
                    inbox.c.handled_at.is_(None),
                    or_(expired, inbox.c.token == statement.excluded.token),
                ),
            ).returning(inbox.c.token)
            if (await connection.execute(statement)).first() is not None:
                return None
            return await self._other(connection, claim.key)

        other = await self._database.write(work, is_single=True)
        if other is None:
            return claim
        handled_at, rest = other
        if handled_at is not None:
            return None
        raise Aborted(
            f"{key.name}: another process handles the message now.", retry_after=max(0.0, rest)
        )

    async def _other(self, connection: AsyncConnection, key: bytes) -> tuple[float | None, float]:
        """Return when a message was handled, and the rest of the lease of its claim."""
        now = now_in(self._database, self._clock)
        lease = func.coalesce(inbox_renewals.c.lease_until, inbox.c.lease_until)
        query = (
            select(inbox.c.handled_at, (lease - now).label("rest"))
            .select_from(inbox.outerjoin(inbox_renewals, inbox_renewals.c.token == inbox.c.token))
            .where(inbox.c.key == key)
        )
        row = (await connection.execute(query)).first()
        return (None, 0.0) if row is None else (row.handled_at, row.rest)

    async def renew(self, claims: Sequence[Claim], *, lease: float) -> set[Claim]:
        """Renew the leases of claims, in one statement. Return those that are still valid."""
        tokens = {claim.token: claim for claim in claims}

        async def work(connection: AsyncConnection) -> set[Claim]:
            now = now_in(self._database, self._clock)
            insert = sqlite.insert if self._database.is_sqlite else postgresql.insert
            valid = select(inbox.c.token, now + literal(lease)).where(
                inbox.c.key.in_([claim.key for claim in claims]),
                inbox.c.token.in_(list(tokens)),
                inbox.c.handled_at.is_(None),
            )
            statement = insert(inbox_renewals).from_select(["token", "lease_until"], valid)
            result = await connection.execute(
                statement.on_conflict_do_update(
                    index_elements=[inbox_renewals.c.token],
                    set_={"lease_until": statement.excluded.lease_until},
                ).returning(inbox_renewals.c.token)
            )
            return {tokens[token] for token in result.scalars()}

        return await self._database.write(work, is_single=True)

    async def release(self, claim: Claim) -> None:
        """Remove a claim, so that another process need not wait for the end of its lease."""

        async def work(connection: AsyncConnection) -> None:
            await connection.execute(
                delete(inbox).where(
                    inbox.c.key == claim.key,
                    inbox.c.token == claim.token,
                    inbox.c.handled_at.is_(None),
                )
            )

        await self._database.write(work, is_single=True)

    async def finish(self, connection: AsyncConnection, claim: Claim) -> bool:
        """Write that a message is handled, in the transaction of its handler.

        Returns:
            False if another process has replaced the claim.
        """
        result = await connection.execute(
            update(inbox)
            .where(
                inbox.c.key == claim.key,
                inbox.c.token == claim.token,
                inbox.c.handled_at.is_(None),
            )
            .values(handled_at=now_in(self._database, self._clock))
        )
        return result.rowcount == 1

    async def is_finished(self, claim: Claim) -> bool:
        """Return True if the transaction with `finish` was committed.

        On PostgreSQL the query waits for a transaction that the server still commits.
        """
        query = select(inbox.c.token, inbox.c.handled_at).where(inbox.c.key == claim.key)
        if not self._database.is_sqlite:
            query = query.with_for_update()

        async def work(connection: AsyncConnection) -> bool:
            row = (await connection.execute(query)).first()
            return row is not None and row.token == claim.token and row.handled_at is not None

        return await self._database.write(work)
