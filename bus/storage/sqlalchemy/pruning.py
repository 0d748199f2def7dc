"""Pruning of a store in small batches, so that no other statement waits for it."""

import asyncio

from sqlalchemy import and_, func, not_, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from bus.messaging.jobs.pruning import PruneReport, Retention
from bus.messaging.jobs.retention import COPIES_SECONDS
from bus.storage.sqlalchemy.database import Database
from bus.storage.sqlalchemy.inbox import SqlInbox
from bus.storage.sqlalchemy.instances import forget_lost
from bus.storage.sqlalchemy.job_store import SqlJobStore
from bus.storage.sqlalchemy.tables import inbox, jobs, store

__all__ = ["Pruning"]

BATCH_ROWS = 200
PAUSE_SECONDS = 0.05
"""Seconds between two batches, in which other transactions run."""
LOST_SECONDS = 24 * 3600.0
"""Seconds after the last sign of life of an instance until its row is removed."""


class Pruning:
    """Removes the data of messages that were handled long ago."""

    def __init__(self, database: Database, job_store: SqlJobStore, handled: SqlInbox) -> None:
        """Create the object, for the database with these jobs and handled messages."""
        self._database, self._jobs, self._inbox = database, job_store, handled

    async def claim(self, *, now: float, seconds: float) -> bool:
        """Return True if this instance prunes now. The next one may prune after `seconds`."""

        async def work(connection: AsyncConnection) -> bool:
            done = await connection.execute(
                update(store)
                .where(store.c.next_prune_at <= now)
                .values(next_prune_at=now + seconds)
            )
            return done.rowcount > 0

        return await self._database.write(work, is_single=True)

    async def prune(self, retention: Retention, *, now: float) -> PruneReport:
        """Remove everything that is due, and return the numbers.

        Args:
            retention: Seconds for which the data is kept.
            now: Present time in seconds since the epoch.
        """
        payloads = deleted = handled = 0
        for state, seconds in retention.seconds_by_state():
            while True:
                pruned, removed = await self._jobs.prune(
                    state, ended_before=now - seconds, limit=BATCH_ROWS, now=now
                )
                payloads, deleted = payloads + pruned, deleted + removed
                if max(pruned, removed) < BATCH_ROWS:
                    break
                await asyncio.sleep(PAUSE_SECONDS)
        while removed := await self._inbox.prune(before=now - retention.inbox, limit=BATCH_ROWS):
            handled += removed
            if removed < BATCH_ROWS:
                break
            await asyncio.sleep(PAUSE_SECONDS)
        await self._database.write(
            lambda each: forget_lost(each, seen_before=now - LOST_SECONDS), is_single=True
        )
        return PruneReport(payloads=payloads, jobs=deleted, inbox=handled)

    async def count(self, retention: Retention, *, now: float) -> PruneReport:
        """Return the numbers that `prune` would remove now, and remove nothing.

        The payload of a job whose row is due is counted, too.
        """
        ended = [
            and_(jobs.c.state == state, jobs.c.ended_at < now - seconds)
            for state, seconds in retention.seconds_by_state()
        ]
        payloads = select(func.count()).where(or_(*ended), not_(jobs.c.is_pruned))
        dead = now - COPIES_SECONDS
        rows = select(func.count()).where(
            or_(*ended), jobs.c.is_pruned, jobs.c.expires <= dead, jobs.c.recorded_at <= dead
        )
        before = now - retention.inbox
        handled = select(func.count()).where(
            or_(
                inbox.c.handled_at < before,
                and_(inbox.c.handled_at.is_(None), inbox.c.lease_until < before),
            )
        )

        async def work(connection: AsyncConnection) -> PruneReport:
            numbers = [
                int((await connection.execute(each)).scalar_one())
                for each in (payloads, rows, handled)
            ]
            return PruneReport(payloads=numbers[0], jobs=numbers[1], inbox=numbers[2])

        return await self._database.read(work)
