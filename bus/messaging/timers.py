"""Many deadlines, one timer: most are met, and a timer each would cost more than the rest of the wait."""

import asyncio
from collections.abc import Callable, Hashable
from types import TracebackType
from typing import Any

__all__ = ["SharedTimer", "TimerExpired"]

TICK_SECONDS = 0.02
"""Seconds between two looks; by so much a deadline may be noticed late."""


class TimerExpired(Exception):
    """The work took longer than it may."""


Due = dict[Hashable, tuple[float, Callable[[], object]]]


class SharedTimer:
    """What has to happen by when, on each event loop's own clock."""

    def __init__(self) -> None:
        self._due: dict[asyncio.AbstractEventLoop, Due] = {}

    def __len__(self) -> int:
        return sum(len(due) for due in self._due.values())

    def add(
        self,
        loop: asyncio.AbstractEventLoop,
        key: Hashable,
        ends: float,
        expire: Callable[[], object],
    ) -> None:
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
        loop.call_later(TICK_SECONDS, self._look, loop, due)
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
                loop.call_later(TICK_SECONDS, self._look, loop, due)
            else:
                del self._due[loop]

    def limit(self, seconds: float) -> "TimeoutScope":
        """`with deadlines.limit(seconds):` cancels what takes longer, and raises `OutOfTime`. As `asyncio.timeout`, by the shared timer."""
        return TimeoutScope(self, seconds)


class TimeoutScope:
    """What ends a task's work."""

    __slots__ = ("_before", "_deadlines", "_expired", "_loop", "_seconds", "_task")

    def __init__(self, deadlines: SharedTimer, seconds: float) -> None:
        self._deadlines = deadlines
        self._seconds = seconds
        self._expired = False

    def __enter__(self) -> None:
        """Begin."""
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("a limit needs a task that can be cancelled")
        self._task: asyncio.Task[Any] = task
        self._before = task.cancelling()
        self._loop = loop = task.get_loop()
        self._deadlines.add(loop, self, loop.time() + self._seconds, self._expire)

    def _expire(self) -> None:
        self._expired = True
        self._task.cancel()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End; a cancellation that was not of this limit's making goes on as one."""
        self._deadlines.discard(self._loop, self)
        if (
            self._expired
            and self._task.uncancel() <= self._before
            and isinstance(error, asyncio.CancelledError)
        ):
            raise TimerExpired from None
