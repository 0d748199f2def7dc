"""Batches: the writes of one turn of the event loop go to the store in one call."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Generic, TypeVar

from bus.errors import Unavailable
from bus.messaging.backoff import backoff
from bus.runtime.failure_log import UNEXPECTED
from bus.runtime.jobs.store_health import StoreHealth

__all__ = ["MAX_BATCH", "WriteBatch"]

T = TypeVar("T")
R = TypeVar("R")

MAX_BATCH = 200
"""Maximum number of values in one call of the store."""


class WriteBatch(Generic[T, R]):
    """Collects values, and writes them in one call while the call before has not returned.

    While the store is away, the values wait, and the call is repeated. If a call fails for another
    reason, each value is written alone, so that one value does not fail the others.
    """

    def __init__(
        self, write: Callable[[Sequence[T]], Awaitable[Sequence[R]]], health: StoreHealth, name: str
    ) -> None:
        """Create an empty batch.

        Args:
            write: Call of the store. It returns one result for each value.
            health: Availability of the store.
            name: Name of the task that writes.
        """
        self._write_all, self._health, self._name = write, health, name
        self._waiting: list[tuple[T, asyncio.Future[R]]] = []
        self._task: asyncio.Task[None] | None = None
        self._stopping = asyncio.Event()

    async def add(self, value: T) -> R:
        """Write a value with those of this turn, and return its result after the commit.

        Raises:
            Unavailable: The store is away, and the batch is stopping.
        """
        result: asyncio.Future[R] = asyncio.get_running_loop().create_future()
        self._waiting.append((value, result))
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name=self._name)
        return await result

    def stop(self) -> None:
        """Do not wait for the store any more. Values that cannot be written now fail."""
        self._stopping.set()

    async def close(self) -> None:
        """End the task. Values that are not written fail."""
        self.stop()
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
        _fail(self._waiting, Unavailable("the service has stopped before the store was written"))

    async def _run(self) -> None:
        taken: list[tuple[T, asyncio.Future[R]]] = []
        try:
            await asyncio.sleep(0)  # the other tasks of this turn add their values
            while self._waiting:
                taken = self._waiting[:MAX_BATCH]
                del self._waiting[:MAX_BATCH]
                await self._write(taken)
        finally:
            self._task = None
            _fail(taken, Unavailable("the service has stopped before the store was written"))

    async def _write(self, taken: Sequence[tuple[T, asyncio.Future[R]]]) -> None:
        failures = 0
        # A cancelled waiter has returned its message already.
        while taken := [each for each in taken if not each[1].done()]:
            try:
                values = [value for value, _ in taken]
                results = await self._health.call(self._write_all(values))
            except Unavailable as error:
                failures += 1
                if self._stopping.is_set():
                    _fail(taken, error)
                    return
                with suppress(TimeoutError):
                    async with asyncio.timeout(backoff(failures)):
                        await self._stopping.wait()
            except UNEXPECTED as error:
                if len(taken) == 1:
                    _fail(taken, error)
                for each in taken:
                    await self._write([each])
                return
            else:
                for (_, future), result in zip(taken, results, strict=True):
                    if not future.done():
                        future.set_result(result)
                return


def _fail(values: Sequence[tuple[T, asyncio.Future[R]]], error: BaseException) -> None:
    for _, future in values:
        if not future.done():
            future.set_exception(error)
