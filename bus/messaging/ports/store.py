"""The port of a durable store. All instances of one service share the store.

If a store cannot be reached, each method of the store's parts raises `Unavailable`. A method that
raised this error may have had its effect, so every write can be repeated.
"""

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol

from bus.messaging.jobs.beat import InstanceBeat
from bus.messaging.jobs.pauses import Pause
from bus.messaging.jobs.pruning import PruneReport, Retention
from bus.messaging.jobs.records import Attempt, AttemptEnd, JobProgress
from bus.messaging.ports.inbox import FactKey, Inbox
from bus.messaging.ports.job_store import JobStore

__all__ = ["InstanceBeat", "Store", "Transaction"]


class Transaction(Protocol):
    """A transaction of a handler. The message becomes handled if, and only if, it commits."""

    @property
    def session(self) -> Any:
        """The session for the handler's writes: `sqlalchemy.ext.asyncio.AsyncSession`.

        It connects at its first use. After `restart` it is another session.
        """
        ...

    async def commit(
        self, end: AttemptEnd | None = None, *, progress: JobProgress | None = None
    ) -> bool:
        """Commit the handler's writes, and that the message is handled.

        Args:
            end: End of the attempt, for a durable job. It is part of the same transaction.
            progress: Last progress of the job, if it is not stored yet. SQLite has one writer, so
                no other transaction could store it while the handler's is open.

        Returns:
            False if another process has taken the message over. Nothing was written then.

        Raises:
            Aborted: Concurrent work caused a conflict. Nothing was written. `restart` permits
                another run of the handler.
            FailedPrecondition: The handler has committed or closed the session itself, or has
                ignored an error of the session. Nothing was written.
            Exception: The error of the database. Nothing was written.
        """
        ...

    async def restart(self) -> None:
        """Discard the writes of the handler, so that it can run again under the same claim."""
        ...

    def is_conflict(self, error: BaseException) -> bool:
        """Return True if concurrent work caused an error, so that another run may succeed."""
        ...


class Store(Protocol):
    """Durable store of one service."""

    @property
    def id(self) -> str:
        """Random id of the database, which was made when its tables were created."""
        ...

    @property
    def has_transactions(self) -> bool:
        """True if handlers can write to the store in a transaction: it is a database."""
        ...

    @property
    def jobs(self) -> JobStore:
        """The durable jobs."""
        ...

    @property
    def inbox(self) -> Inbox:
        """The handled messages, for handlers without a transaction."""
        ...

    async def open(self) -> None:
        """Connect, and check the tables.

        Raises:
            ConfigurationError: The store is behind, ahead, locked, read-only, or belongs to another
                service. The text has the command to run.
            Unavailable: The database cannot be reached.
        """
        ...

    async def close(self) -> None:
        """Close all connections. A second call has no effect."""
        ...

    def transaction(
        self, key: FactKey | Attempt, *, lease: float
    ) -> AbstractAsyncContextManager[Transaction | None]:
        """Claim a message for a handler, and yield its transaction.

        The claim is written before the block, so no second process handles the message. The store
        renews the claim until the block ends. If the block ends without a commit, the writes are
        discarded and the claim is released.

        Args:
            key: Key of the message. An attempt of a durable job is claimed by its row already.
            lease: Seconds after which another process may take the message over, unless the claim
                was renewed. The worker renews the lease of an attempt itself.

        Yields:
            The transaction. None if the message was handled before.

        Raises:
            Aborted: Another process handles the message now. `retry_after` has the seconds until
                its lease ends, unless it is renewed.
        """
        ...

    async def prune(self, retention: Retention, *, every: float = 0) -> PruneReport | None:
        """Remove the data of messages that were handled long ago, in batches.

        Args:
            retention: Seconds for which the data is kept.
            every: Minimum seconds between two prunings of all instances. 0: now in any case.

        Returns:
            The removed data. None if another instance has pruned within these seconds.
        """
        ...

    async def beat(self, instance: str, *, recorded_until: float) -> Sequence[InstanceBeat]:
        """Write a sign of life of an instance, and return those of all instances."""
        ...

    async def forget_instance(self, instance: str) -> None:
        """Remove an instance that has stopped."""
        ...

    async def pauses(self) -> Sequence[Pause]:
        """Return the pauses that operators have requested, without those that have ended."""
        ...

    async def pause(self, pause: Pause) -> None:
        """Store a pause. It replaces an earlier pause of the same queue."""
        ...

    async def resume(self, queue: str) -> bool:
        """Remove the pause of a queue. Return False if there is none."""
        ...

    async def now(self) -> float:
        """Return the time of the store, in seconds since the epoch."""
        ...
