"""Pool of processes. One job at a time uses a process."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Generic, Protocol, Self, TypeVar

__all__ = ["Pool", "Usable"]


class Usable(Protocol):
    """Process that a pool can keep."""

    @property
    def usable(self) -> bool:
        """True if the process is alive and idle."""
        ...

    async def end(self) -> None:
        """Kill the process, and wait until it has ended."""
        ...


P = TypeVar("P", bound=Usable)


class Pool(Generic[P]):
    """Pool of `size` processes.

    If a process died or was killed during a task, the next `lease` starts a new process in its
    place.
    """

    def __init__(self, start: Callable[[], Awaitable[P]], size: int) -> None:
        self._start = start
        self._places: asyncio.Queue[P | None] = asyncio.Queue()
        self._size = size
        self._closed = False

    @classmethod
    @asynccontextmanager
    async def opened(cls, start: Callable[[], Awaitable[P]], *, size: int) -> AsyncIterator[Self]:
        """Start all processes and yield the pool. End the processes when the block ends.

        All processes are started before the block, so an error of the start is raised immediately.
        """
        pool = cls(start, size)
        try:
            await pool._fill()
            yield pool
        finally:
            await pool._empty()

    @asynccontextmanager
    async def lease(self) -> AsyncIterator[P]:
        """Yield a process for one task, and return it to the pool when the block ends.

        If the block ends before the task is done, for example by a timeout, the process is killed.
        A running task cannot be stopped in another way.
        """
        process = await self._places.get()
        try:
            if process is None or not process.usable:
                process = await self._replaced(process)
            yield process
        finally:
            kept = process if process is not None and process.usable and not self._closed else None
            self._places.put_nowait(kept)
            if process is not None and kept is None:
                await process.end()

    async def _replaced(self, dead: P | None) -> P:
        if dead is not None:
            await dead.end()
        return await self._start()

    async def _fill(self) -> None:
        for error in await asyncio.gather(
            *(self._add() for _ in range(self._size)), return_exceptions=True
        ):
            if error is not None:
                raise error

    async def _add(self) -> None:
        self._places.put_nowait(await self._start())

    async def _empty(self) -> None:
        self._closed = True
        while not self._places.empty():
            process = self._places.get_nowait()
            if process is not None:
                await process.end()
