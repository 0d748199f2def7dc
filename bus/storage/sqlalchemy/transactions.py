"""Transactions of handlers: their writes, and the fact that the message is handled."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Protocol

from sqlalchemy.exc import DBAPIError, PendingRollbackError
from sqlalchemy.exc import TimeoutError as SQLAlchemyTimeout
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncSession

from bus.errors import Aborted, BusError, FailedPrecondition, Unavailable
from bus.messaging.backoff import backoff
from bus.messaging.jobs.records import Attempt, AttemptEnd, JobProgress
from bus.messaging.jobs.states import JobState
from bus.messaging.ports.inbox import FactKey
from bus.messaging.timers import loop_time
from bus.storage.sqlalchemy.claim_renewals import ClaimRenewals
from bus.storage.sqlalchemy.claims import Claim, Claims
from bus.storage.sqlalchemy.database import DRIVER_ERRORS, Database, error_from, is_conflict
from bus.storage.sqlalchemy.handler_session import (
    SessionGuard,
    ignored_failure,
    new_session,
    watch_engine,
)
from bus.storage.sqlalchemy.inbox import Clock

__all__ = ["EndsJobs", "HandlerTransaction", "Transactions"]

log = logging.getLogger("bus.inbox")

COMMIT_SECONDS = 30.0
"""Maximum seconds of the commit. Then its outcome is unknown, and the database is asked."""
LOOK_UP_SECONDS = 300.0
"""Maximum seconds to ask for the outcome of a commit, while the database is away."""
RELEASE_SECONDS = 5.0
"""Maximum seconds to end a transaction that is not committed. Its lease expires in any case."""


class EndsJobs(Protocol):
    """The part of the job store that a transaction needs."""

    async def report_in(
        self, connection: AsyncConnection, attempt: Attempt, progress: JobProgress
    ) -> bool:
        """Store the progress of a running attempt in a transaction."""
        ...

    async def end_in(self, connection: AsyncConnection, end: AttemptEnd) -> JobState | None:
        """Write the end of an attempt in a transaction. Return None for a stale token."""
        ...

    async def written_end(self, attempt: Attempt) -> JobState | None:
        """Return the state that an attempt has written, or None. Wait for a running commit."""
        ...


class Transactions:
    """The transactions of the handlers of this process."""

    def __init__(
        self,
        database: Database,
        sessions: AsyncEngine,
        *,
        jobs: EndsJobs | None = None,
        clock: Clock | None = None,
    ) -> None:
        """Create the object.

        Args:
            database: Database of the store, for claims.
            sessions: Engine of the same database that is only for sessions of handlers. A handler
                can hold a connection for minutes, and no claim may wait for that. Each session
                listens to it.
            jobs: The job store.
            clock: Function that returns seconds since the epoch, as that of `SqlInbox`.
        """
        self._database, self._sessions, self._jobs = database, sessions, jobs
        self._claims = Claims(database, clock=clock)
        self._renewals = ClaimRenewals(self._claims)
        self._closing: set[asyncio.Task[None]] = set()
        watch_engine(sessions)

    @asynccontextmanager
    async def begin(
        self, key: FactKey | Attempt, *, lease: float
    ) -> AsyncIterator["HandlerTransaction | None"]:
        """Claim a message, and yield the transaction of its handler; see `Store.transaction`."""
        claim = None
        if isinstance(key, FactKey):
            claim = await self._claims.claim(key, lease=lease)
            if claim is None:
                yield None
                return
            self._renewals.add(claim, lease)
        transaction = HandlerTransaction(
            self._database, self._sessions, claims=self._claims, claim=claim, jobs=self._jobs
        )
        try:
            yield transaction
        finally:
            if claim is not None:
                self._renewals.discard(claim)
            await self._close(transaction)

    async def _close(self, transaction: "HandlerTransaction") -> None:
        """End a transaction, even if the task of its handler is cancelled in this time."""
        if transaction.has_ended:
            await transaction.discard()
            return
        task = asyncio.create_task(transaction.release(), name="release of a claim")
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)
        await asyncio.shield(task)

    def reset(self) -> None:
        """Forget the connections of another event loop or of a parent process, without a close."""
        self._sessions.sync_engine.dispose(close=False)
        self._renewals = ClaimRenewals(self._claims)
        self._closing = set()

    async def close(self) -> None:
        """Stop the renewals, and close the connections of the sessions."""
        if self._closing:
            await asyncio.wait(self._closing)
        await self._renewals.close()
        await self._sessions.dispose()


class HandlerTransaction:
    """The transaction of one message; see `bus.messaging.ports.store.Transaction`."""

    def __init__(
        self,
        database: Database,
        sessions: AsyncEngine,
        *,
        claims: Claims,
        claim: Claim | None,
        jobs: EndsJobs | None,
    ) -> None:
        """Create a transaction without a connection.

        Args:
            database: Database, for its address in error texts.
            sessions: Engine for the session.
            claims: Claims of the database.
            claim: Claim of an event. None for a durable job, whose row is its claim.
            jobs: The job store, for a durable job.
        """
        self._database, self._sessions = database, sessions
        self._claims, self._claim, self._jobs = claims, claim, jobs
        self._guard = SessionGuard()
        self._session: AsyncSession | None = None
        self.has_ended = False
        """True if the message is handled, or belongs to another process."""

    @property
    def session(self) -> AsyncSession:
        """The session of the present run. It connects at its first use."""
        if self._session is None:
            self._session = new_session(self._sessions, self._guard)
        return self._session

    async def commit(
        self, end: AttemptEnd | None = None, *, progress: JobProgress | None = None
    ) -> bool:
        """Commit the writes, and that the message is handled; see `Transaction.commit`."""
        self._check()
        session, self._guard.is_handler = self.session, False
        try:
            async with asyncio.timeout(COMMIT_SECONDS):
                await session.flush()
                is_valid = await self._finish(await session.connection(), end, progress)
        except DRIVER_ERRORS as error:
            raise self._translated(error) from error
        if not is_valid:
            self.has_ended = True
            return False
        return await self._commit(session, end)

    def _check(self) -> None:
        """Raise the error of a handler that has misused its session, or ignored its error."""
        if self._guard.misuse is not None:
            raise self._guard.misuse
        failure = self._guard.failure
        if failure is None:
            return
        if self.is_conflict(failure):
            raise self._translated(failure) from failure
        raise ignored_failure(failure) from failure

    async def _finish(
        self, connection: AsyncConnection, end: AttemptEnd | None, progress: JobProgress | None
    ) -> bool:
        """Write the end of the message in the transaction. Return False if the claim is lost."""
        if self._claim is not None:
            return await self._claims.finish(connection, self._claim)
        if end is None or self._jobs is None:
            raise FailedPrecondition(
                "the transaction of a durable job needs the end of its attempt"
            )
        if progress is not None:
            await self._jobs.report_in(connection, end.attempt, progress)
        return await self._jobs.end_in(connection, end) is not None

    async def _commit(self, session: AsyncSession, end: AttemptEnd | None) -> bool:
        try:
            async with asyncio.timeout(COMMIT_SECONDS):
                await session.commit()
        except DRIVER_ERRORS as error:
            if is_conflict(error):
                raise self._translated(error) from error
            # The connection can still be open, with locks that the question would wait for.
            with suppress(*DRIVER_ERRORS):
                await session.invalidate()
            if not await self._is_committed(end):
                raise self._translated(error) from error
        self.has_ended = True
        return True

    async def _is_committed(self, end: AttemptEnd | None) -> bool:
        """Ask the database for the outcome of a commit without an answer.

        Raises:
            Unavailable: The database did not answer for `LOOK_UP_SECONDS`.
        """
        ends, attempt = loop_time() + LOOK_UP_SECONDS, 0
        while True:
            attempt += 1
            try:
                if self._claim is not None:
                    return await self._claims.is_finished(self._claim)
                if end is None or self._jobs is None:
                    return False
                return await self._jobs.written_end(end.attempt) == end.state
            except BusError as error:
                if loop_time() > ends:
                    raise Unavailable(
                        f"the outcome of a commit is unknown, because {error}", maybe_executed=True
                    ) from error
            await asyncio.sleep(backoff(attempt))

    def _translated(self, error: BaseException) -> BaseException:
        """Return the error to raise for an error of the commit.

        An error that the writes of the handler have caused stays as it is.
        """
        if is_conflict(error):
            return Aborted("the transaction had a conflict with concurrent work.")
        if isinstance(error, PendingRollbackError):
            return ignored_failure(error)
        if isinstance(error, DBAPIError):
            is_lost = error.connection_invalidated
        else:
            is_lost = isinstance(error, OSError | TimeoutError | SQLAlchemyTimeout)
        return error_from(error, self._database.place) if is_lost else error

    async def restart(self) -> None:
        """Discard the writes, and begin a new session under the same claim."""
        await self.discard()
        self._guard, self._session = SessionGuard(), None

    def is_conflict(self, error: BaseException) -> bool:
        """Return True if concurrent work caused an error, so that another run may succeed."""
        if isinstance(error, BaseExceptionGroup):
            return any(map(self.is_conflict, error.exceptions))
        return is_conflict(error)

    async def release(self) -> None:
        """Discard the writes of a transaction that is not committed, and release its claim."""
        try:
            async with asyncio.timeout(RELEASE_SECONDS):
                await self.discard()
                if self._claim is not None:
                    await self._claims.release(self._claim)
        except (BusError, TimeoutError) as error:
            log.debug("a claim was not released, and expires: %s", type(error).__name__)

    async def discard(self) -> None:
        """Close the session, and discard the writes that are not committed."""
        session = self._session
        if session is None:
            return
        self._guard.is_handler = False
        try:
            # A refused commit of the connection leaves it in a state that the pool does not reset.
            await (session.close() if self._guard.misuse is None else session.invalidate())
        except DRIVER_ERRORS as error:
            log.debug("the session of a handler was not closed: %s", type(error).__name__)
