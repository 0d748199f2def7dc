"""The session of a transactional handler. Only the bus commits and closes it.

A commit of the handler itself would make its writes permanent before the message is handled. If
its process ended between the two, the handler would write again. A `close` would discard the writes
without an error, and the message would be handled without them.
"""

from typing import Any

from sqlalchemy import Connection, event
from sqlalchemy.engine import ExceptionContext
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession
from sqlalchemy.orm import Session, SessionTransaction
from typing_extensions import override

from bus.errors import FailedPrecondition

__all__ = ["SessionGuard", "ignored_failure", "new_session", "watch_engine"]

GUARD = "bus_guard"
"""Name of the guard in the `info` of a session and of its connection."""


class SessionGuard:
    """The use of a session by its handler, as far as it decides about the commit."""

    def __init__(self) -> None:
        self.is_handler = True
        """True while the handler may use the session. False while the bus ends the transaction."""
        self.misuse: FailedPrecondition | None = None
        """Error of a refused call. It fails the attempt even if the handler ignores it."""
        self.failure: BaseException | None = None
        """Error of a statement, after which PostgreSQL only rolls the transaction back."""

    def refuse(self, call: str, advice: str) -> None:
        """Raise an error if the handler makes a call that only the bus may make."""
        if self.is_handler:
            self.misuse = FailedPrecondition(
                f"the handler has called {call} of its session, which the bus commits after the "
                f"handler. {advice}"
            )
            raise self.misuse


class _GuardedSession(Session):
    """The synchronous session inside of the session of a handler."""

    @override
    def close(self) -> None:
        self._refuse_end("close()")
        super().close()

    @override
    def reset(self) -> None:
        self._refuse_end("reset()")
        super().reset()

    @override
    def invalidate(self) -> None:
        self._refuse_end("invalidate()")
        super().invalidate()

    def _refuse_end(self, call: str) -> None:
        _guard_of(self).refuse(
            call,
            "Remove the call, or the `async with` that makes it. To discard the writes, call "
            "rollback() or raise an error.",
        )


COMMIT_ADVICE = (
    "Remove it. flush() sends the writes, and begin_nested() is for a part that may fail."
)


@event.listens_for(_GuardedSession, "before_commit")
def _refuse_commit(session: Session) -> None:
    if not session.in_nested_transaction():  # the end of a savepoint is permitted
        _guard_of(session).refuse("commit()", COMMIT_ADVICE)


@event.listens_for(_GuardedSession, "after_begin")
def _mark(session: Session, _: SessionTransaction, connection: Connection) -> None:
    connection.info[GUARD] = _guard_of(session)


def _guard_of(session: Session) -> SessionGuard:
    guard: SessionGuard = session.info[GUARD]
    return guard


def new_session(engine: AsyncEngine, guard: SessionGuard) -> AsyncSession:
    """Return a session for one run of a handler. It connects at its first use."""
    return AsyncSession(
        engine,
        sync_session_class=_GuardedSession,
        info={GUARD: guard},
        # An object stays readable after the commit, without another query.
        expire_on_commit=False,
        # A task that outlives the handler gets an error, and not a new transaction.
        close_resets_only=False,
    )


def watch_engine(engine: AsyncEngine) -> None:
    """Guard the connections of an engine, which is only for sessions of handlers."""
    sync_engine = engine.sync_engine
    event.listen(sync_engine, "commit", _before_connection_commit)
    event.listen(sync_engine, "rollback", _forget_failure)
    event.listen(sync_engine, "handle_error", _note_failure)
    event.listen(sync_engine, "set_connection_execution_options", _refuse_autocommit)


def _before_connection_commit(connection: Connection) -> None:
    guard = connection.info.get(GUARD)
    if guard is not None:
        guard.refuse("commit() on the connection", COMMIT_ADVICE)


def _forget_failure(connection: Connection) -> None:
    guard = connection.info.get(GUARD)
    if guard is not None:
        guard.failure = None


def _note_failure(context: ExceptionContext) -> None:
    connection = context.connection
    if connection is None or connection.in_nested_transaction():
        return  # the end of the savepoint makes the transaction usable again
    guard = connection.info.get(GUARD) if not connection.invalidated else None
    if guard is not None:
        guard.failure = context.original_exception


def _refuse_autocommit(_: Connection, options: dict[str, Any]) -> None:
    if options.get("isolation_level") == "AUTOCOMMIT":
        raise FailedPrecondition(
            "the session of a transactional handler cannot have the isolation level AUTOCOMMIT, "
            "because the bus commits it after the handler. Choose another level."
        )


def ignored_failure(error: BaseException) -> FailedPrecondition:
    """Return the error of an attempt whose handler has ignored an error of its session."""
    return FailedPrecondition(
        f"the handler has ignored an error of its session ({type(error).__name__}). Let the error "
        "end the handler, or run the statement inside of `async with session.begin_nested()`."
    )
