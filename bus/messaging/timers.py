"""One timer for many deadlines.

Most operations end before their deadline. A separate asyncio timer for each operation would take
more processor time than all other work of waiting for the operation.
"""

import asyncio
from collections.abc import Callable, Hashable
from datetime import UTC, datetime
from types import TracebackType
from typing import Any

__all__ = [
    "LoopTimer",
    "SharedTimer",
    "TimerExpired",
    "bound_timer",
    "call_later",
    "format_seconds",
    "loop_time",
    "utc_date_and_time",
    "utc_time",
]

TICK_SECONDS = 0.02
"""Seconds between two checks of the deadlines. A function is called up to this many seconds
late."""


class TimerExpired(Exception):
    """Raised if a block takes longer than its `TimeoutScope` allows."""


Due = dict[Hashable, tuple[float, Callable[[], object]]]


class SharedTimer:
    """Timer that calls functions at given times of the event loop's clock."""

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
        """Call a function at a given time. An earlier `discard` with `key` prevents the call.

        Args:
            loop: Running event loop.
            key: Key for `discard`.
            ends: Time of the call, in seconds of the loop's clock.
            expire: Function to call.
        """
        due = self._due.get(loop)
        if due is None:
            due = self._start(loop)
        due[key] = (ends, expire)

    def advance(self, loop: asyncio.AbstractEventLoop, key: Hashable, ends: float) -> None:
        """Move a deadline to an earlier time. A later time, or an unknown key, changes nothing.

        Args:
            loop: Running event loop.
            key: Key of `add`.
            ends: New time of the call, in seconds of the loop's clock.
        """
        due = self._due.get(loop, {})
        entry = due.get(key)
        if entry is not None and ends < entry[0]:
            due[key] = (ends, entry[1])

    def discard(self, loop: asyncio.AbstractEventLoop, key: Hashable) -> None:
        """Remove a deadline that was met, or that is not needed any more."""
        due = self._due.get(loop)
        if due is not None:
            due.pop(key, None)

    def _start(self, loop: asyncio.AbstractEventLoop) -> Due:
        for closed in [key for key in self._due if key.is_closed()]:
            del self._due[closed]
        due = self._due[loop] = {}
        loop.call_later(TICK_SECONDS, self._expire_due, loop, due)
        return due

    def _expire_due(self, loop: asyncio.AbstractEventLoop, due: Due) -> None:
        now = loop.time()
        try:
            for key in [key for key, (ends, _) in due.items() if ends <= now]:
                entry = due.pop(key, None)
                if entry is not None:
                    entry[1]()
        finally:  # keep the timer for the other deadlines, even if a function raised
            if due:
                loop.call_later(TICK_SECONDS, self._expire_due, loop, due)
            else:
                del self._due[loop]

    def limit(self, seconds: float) -> "TimeoutScope":
        """Return a context manager that, like `asyncio.timeout`, limits the time of its block.

        If the block takes longer than `seconds`, the context manager cancels the block, and
        raises `TimerExpired`.
        """
        return TimeoutScope(self, seconds)


class TimeoutScope:
    """Context manager that cancels the task of its block after a number of seconds."""

    __slots__ = ("_cancel_count", "_expired", "_loop", "_seconds", "_task", "_timer")

    def __init__(self, timer: SharedTimer, seconds: float) -> None:
        self._timer = timer
        self._seconds = seconds
        self._expired = False

    def __enter__(self) -> None:
        """Start the limit in the current task."""
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("TimeoutScope is used outside a task. Use it in a coroutine.")
        self._task: asyncio.Task[Any] = task
        self._cancel_count = task.cancelling()
        self._loop = loop = task.get_loop()
        self._timer.add(loop, self, loop.time() + self._seconds, self._expire)

    def _expire(self) -> None:
        self._expired = True
        self._task.cancel()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End the limit. A cancellation that this scope did not request is raised unchanged."""
        self._timer.discard(self._loop, self)
        if (
            self._expired
            and self._task.uncancel() <= self._cancel_count
            and isinstance(error, asyncio.CancelledError)
        ):
            raise TimerExpired from None


def format_seconds(seconds: float) -> str:
    """Return a duration for an error message, such as `0.5 s` or `86400 s`."""
    if seconds < TICK_SECONDS:
        return f"{seconds:.2g} s"
    # The rest of a timeout of 1 s is 0.999 s when the message is sent. `g` has a precision of six
    # digits, and would write 31 days with an exponent.
    return f"{round(seconds, 2):.15g} s"


def loop_time() -> float:
    """Return the time of the running event loop, in monotonic seconds."""
    return asyncio.get_running_loop().time()


def call_later(seconds: float, call: Callable[[], None]) -> asyncio.TimerHandle:
    """Call a function of the running event loop after some seconds, and return its handle."""
    return asyncio.get_running_loop().call_later(seconds, call)


class LoopTimer:
    """The monotonic time of the event loop that reads it first. Other threads can read it later.

    The meter is read in any thread, and a thread without an event loop has no time of its own.
    """

    __slots__ = ("_time",)

    def __init__(self) -> None:
        self._time: Callable[[], float] | None = None

    def __call__(self) -> float:
        """Return the time, in seconds."""
        return self.bound()()

    def bound(self) -> Callable[[], float]:
        """Return the event loop's own function, which is faster than this object."""
        if self._time is None:
            self._time = asyncio.get_running_loop().time
        return self._time


def bound_timer(timer: Callable[[], float]) -> Callable[[], float]:
    """Return the fastest function that gives the times of `timer`. Call it in the event loop."""
    return timer.bound() if isinstance(timer, LoopTimer) else timer


def utc_time(seconds: float) -> str:
    """Return a time of today or tomorrow for an operator: `16:38:16 UTC`.

    Args:
        seconds: Seconds since the epoch.
    """
    return f"{datetime.fromtimestamp(seconds, UTC):%H:%M:%S} UTC"


def utc_date_and_time(seconds: float) -> str:
    """Return a time for a log line or an error, which is read later: `2026-11-30 16:38:16 UTC`."""
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M:%S} UTC"
