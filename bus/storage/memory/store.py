"""A store in memory with the same port as a database, for tests and for buses in memory."""

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager

from bus.errors import FailedPrecondition
from bus.messaging.ids import uuid4_factory
from bus.messaging.jobs.pauses import Pause
from bus.messaging.jobs.pruning import PruneReport, Retention
from bus.messaging.jobs.records import Attempt
from bus.messaging.ports.inbox import FactKey
from bus.messaging.ports.store import InstanceBeat, Transaction
from bus.storage.memory.inbox import MemoryInbox
from bus.storage.memory.job_store import MemoryJobStore

__all__ = ["MemoryStore"]

Clock = Callable[[], float]
_new_id = uuid4_factory()
NO_LIMIT = 2**31


class MemoryStore:
    """Store in the memory of this process.

    Several buses of one service can share it. It is never closed, so that a test can start a
    service again with the jobs of the instance before.
    """

    def __init__(self, *, clock: Clock = time.time) -> None:
        """Create an empty store.

        Args:
            clock: Function that returns seconds since the epoch.
        """
        self._clock = clock
        self._id = _new_id()
        self._jobs = MemoryJobStore(clock=clock)
        self._inbox = MemoryInbox()
        self._next_prune_at = 0.0
        self._beats: dict[str, InstanceBeat] = {}
        self._pauses: dict[str, Pause] = {}

    @property
    def id(self) -> str:
        """Random id of this store."""
        return self._id

    @property
    def has_transactions(self) -> bool:
        """False: a transactional handler needs a database."""
        return False

    @property
    def jobs(self) -> MemoryJobStore:
        """The durable jobs."""
        return self._jobs

    @property
    def inbox(self) -> MemoryInbox:
        """The handled messages."""
        return self._inbox

    async def open(self) -> None:
        """Do nothing: a store in memory has no connection."""

    async def close(self) -> None:
        """Do nothing: the jobs stay for the next instance."""

    def transaction(
        self, key: FactKey | Attempt, *, lease: float
    ) -> AbstractAsyncContextManager[Transaction | None]:
        """Refuse a transaction.

        Raises:
            FailedPrecondition: A transactional handler needs a database.
        """
        raise FailedPrecondition(
            f"{_id_of(key)}: a store in memory has no transaction of {lease:g} s. "
            "Set BUS_STORE to the URL of a database."
        )

    async def prune(self, retention: Retention, *, every: float = 0) -> PruneReport | None:
        """Remove the data of jobs that ended long ago; see `Store.prune`."""
        now = self._clock()
        if now < self._next_prune_at and every:
            return None
        self._next_prune_at = now + every
        payloads = deleted = 0
        for state, seconds in retention.seconds_by_state():
            pruned, removed = await self._jobs.prune(
                state, ended_before=now - seconds, limit=NO_LIMIT, now=now
            )
            payloads, deleted = payloads + pruned, deleted + removed
        return PruneReport(payloads=payloads, jobs=deleted)

    async def beat(self, instance: str, *, recorded_until: float) -> Sequence[InstanceBeat]:
        """Write a sign of life of an instance, and return those of all instances."""
        self._beats[instance] = InstanceBeat(
            instance=instance, seen_at=self._clock(), recorded_until=recorded_until
        )
        return [*self._beats.values()]

    async def forget_instance(self, instance: str) -> None:
        """Remove an instance that has stopped."""
        self._beats.pop(instance, None)

    async def pauses(self) -> Sequence[Pause]:
        """Return the pauses that have not ended."""
        now = self._clock()
        return [
            pause for pause in self._pauses.values() if pause.until is None or pause.until > now
        ]

    async def pause(self, pause: Pause) -> None:
        """Store a pause. It replaces an earlier pause of the same queue."""
        self._pauses[pause.queue] = pause

    async def resume(self, queue: str) -> bool:
        """Remove the pause of a queue. Return False if there is none."""
        return self._pauses.pop(queue, None) is not None

    async def now(self) -> float:
        """Return the time of the clock, in seconds since the epoch."""
        return self._clock()


def _id_of(key: FactKey | Attempt) -> str:
    return key.key.id if isinstance(key, Attempt) else key.id
