"""Many deadlines, one timer: most are met, and a timer each would cost more than the rest of the wait."""

import asyncio
from collections.abc import Awaitable, Callable, Hashable
from typing import Any, TypeVar

__all__ = ["Deadlines", "OutOfTime"]

T = TypeVar("T")
TICK = 0.02
"""Seconds between two looks; by so much a deadline may be noticed late."""


class OutOfTime(Exception):
    """The work took longer than it may."""


Due = dict[Hashable, tuple[float, Callable[[], object]]]


class Deadlines:
    """What has to happen by when, on each event loop's own clock."""

    def __init__(self) -> None:
        self._due: dict[asyncio.AbstractEventLoop, Due] = {}

    def __len__(self) -> int:
        return sum(len(due) for due in self._due.values())

    def add(self, loop: asyncio.AbstractEventLoop, key: Hashable, ends: float, expire: Callable[[], object]) -> None:
        """Call `expire` at `ends` (the loop's time, seconds), unless `key` is discarded before. `loop` is the running one."""
        due = self._due.get(loop)
        if due is None:
            due = self._begin(loop)
        due[key] = (ends, expire)

    def discard(self, loop: asyncio.AbstractEventLoop, key: Hashable) -> None:
        """It was met, or is of no interest any more."""
        due = self._due.get(loop)
        if due is not None:
            due.pop(key, None)

    def _begin(self, loop: asyncio.AbstractEventLoop) -> Due:
        for other in [other for other in self._due if other.is_closed()]:
            del self._due[other]
        due = self._due[loop] = {}
        loop.call_later(TICK, self._look, loop, due)
        return due

    def _look(self, loop: asyncio.AbstractEventLoop, due: Due) -> None:
        now = loop.time()
        try:
            for key in [key for key, (ends, _) in due.items() if ends <= now]:
                entry = due.pop(key, None)
                if entry is not None:
                    entry[1]()
        finally:  # whoever raises: the others still have deadlines
            if due:
                loop.call_later(TICK, self._look, loop, due)
            else:
                del self._due[loop]

    async def within(self, seconds: float, work: Awaitable[T]) -> T:
        """What `work` returns; it is cancelled, and `OutOfTime` raised, when it takes longer. As `asyncio.timeout`, by the shared timer."""
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("a limit needs a task that can be cancelled")
        loop, before = task.get_loop(), task.cancelling()
        limit = Limit(task)
        self.add(loop, limit, loop.time() + seconds, limit.expire)
        try:
            return await work
        except asyncio.CancelledError:
            if limit.expired and task.cancelling() - 1 <= before:
                raise OutOfTime from None
            raise
        finally:
            self.discard(loop, limit)
            if limit.expired:
                task.uncancel()


class Limit:
    """What ends a task's work."""

    __slots__ = ("_task", "expired")

    def __init__(self, task: "asyncio.Task[Any]") -> None:
        self._task = task
        self.expired = False

    def expire(self) -> None:
        """The time is up."""
        self.expired = True
        self._task.cancel()
