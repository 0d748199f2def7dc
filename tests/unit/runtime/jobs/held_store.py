"""A store that records nothing while a test holds it, like one behind a frozen process."""

import asyncio
from collections.abc import Sequence
from typing import Any

from bus.messaging.jobs.records import NewJob
from bus.storage.memory.store import MemoryStore

__all__ = ["HeldStore"]


class HeldJobs:
    """The jobs of a store. `record` waits until the test opens the gate."""

    def __init__(self, jobs: Any) -> None:
        self._jobs = jobs
        self.gate = asyncio.Event()
        self.waiting = 0
        """Number of jobs that wait for the gate."""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._jobs, name)

    async def record(self, jobs: Sequence[NewJob]) -> Sequence[bool]:
        self.waiting += len(jobs)
        await self.gate.wait()
        recorded: Sequence[bool] = await self._jobs.record(jobs)
        return recorded


class HeldStore:
    """The view of one instance on a store that others share."""

    def __init__(self, store: MemoryStore) -> None:
        self._store = store
        self.jobs = HeldJobs(store.jobs)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)
