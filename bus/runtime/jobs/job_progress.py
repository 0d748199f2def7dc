"""Progress of a durable job: numbered, and stored at most twice a second."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress

from bus.errors import Unavailable
from bus.messaging.backoff import backoff
from bus.messaging.jobs.records import JobProgress
from bus.runtime.failure_log import UNEXPECTED

__all__ = ["STORE_SECONDS", "StoredProgress"]

log = logging.getLogger("bus.jobs")

STORE_SECONDS = 0.5
"""Minimum seconds between two writes of the progress of one attempt, except the last write."""

Store = Callable[[JobProgress], Awaitable[bool]]


class StoredProgress:
    """The progress of one attempt. Of several updates within `STORE_SECONDS`, the last is stored.

    A handler never waits for the store.
    """

    def __init__(self, last_number: int, store: Store) -> None:
        """Create the progress of an attempt.

        Args:
            last_number: Number of the last stored update of the job, or 0.
            store: Function that stores an update. It returns False if the attempt is stale.
        """
        self._number, self._store = last_number, store
        self._pending: JobProgress | None = None
        self._task: asyncio.Task[None] | None = None

    def next_number(self) -> int:
        """Return the number of the next update."""
        self._number += 1
        return self._number

    def add(self, progress: JobProgress) -> None:
        """Store an update soon. It replaces an update that still waits."""
        self._pending = progress
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name="progress of a job")

    async def _run(self) -> None:
        try:
            while self._pending is not None:
                with suppress(Unavailable):  # the next write has a later update
                    await self._write()
                await asyncio.sleep(STORE_SECONDS)
        finally:
            self._task = None

    async def _write(self) -> bool:
        """Store the waiting update. Return False if the attempt is stale."""
        progress = self._pending
        if progress is None:
            return True
        try:
            is_current = await self._store(progress)
        except Unavailable:
            raise
        except UNEXPECTED as error:  # the store refuses this update; the next one can be right
            log.warning(
                "the progress of a job could not be stored (%s); its handler goes on",
                type(error).__name__,
                extra={"error": type(error).__name__},
            )
            is_current = True
        if self._pending is progress or not is_current:
            self._pending = None
        return is_current

    async def flush(self) -> None:
        """Store the last update before the end of the attempt. Repeat it while the store is away.

        The caller cancels the call to give up.
        """
        await self.stop()
        failures = 0
        while self._pending is not None:
            try:
                await self._write()
            except Unavailable:
                failures += 1
                await asyncio.sleep(backoff(failures))

    def take(self) -> JobProgress | None:
        """Return the last update if it is not stored yet, for a transaction that stores it.

        A write that runs now can wait for that transaction, so this method does not wait for it.
        """
        if self._task is not None:
            self._task.cancel()
        return self._pending

    async def stop(self) -> None:
        """End the task that stores updates. An update that waits stays for `flush`."""
        task = self._task
        if task is not None:
            task.cancel()
            await asyncio.wait([task])
