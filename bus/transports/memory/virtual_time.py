"""An event loop with virtual time, so that a test can simulate hours without waiting.

The package `looptime` (0.9, maintained, for Python 3.11 to 3.13) is not used, for three reasons:

- When it is installed, it patches the event loops of all tests.
- It runs 42 turns of the loop before each step of the clock.
- It advances the clock while threads run.

This module changes the time of one loop only.
"""

import asyncio
import selectors
import time
from collections.abc import Callable
from typing import Any

from typing_extensions import override

__all__ = ["VirtualLoop", "wall_clock"]

EPOCH = 1_750_000_000.0
"""Wall-clock time at the loop's time 0, in seconds since 1970. The date is arbitrary."""

Events = list[tuple[selectors.SelectorKey, int]]


def wall_clock() -> float:
    """Return seconds since 1970, calculated from the running loop's clock."""
    return EPOCH + asyncio.get_running_loop().time()


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop that runs in real time until `skip_waits` is called.

    After that call, the loop runs in virtual time. In virtual time the clock stops
    while code runs. When the loop is idle, the clock jumps to the next timer.

    The clock does not jump while an executor runs a call, or while the loop watches a socket, pipe
    or child process. While one of these conditions is true, the loop waits in real time.

    The loop does not detect other threads that call `call_soon_threadsafe`.
    """

    def __init__(self) -> None:
        self._now: float | None = None
        self._calls = 0
        self._virtual_selector = _Selector(self._can_jump, self._advance)
        super().__init__(self._virtual_selector)
        self._own_files = len(self._virtual_selector.get_map())

    def skip_waits(self) -> None:
        """Switch to virtual time."""
        self._now = self.time()

    @override
    def time(self) -> float:
        """Return the seconds on this loop's clock."""
        return super().time() if self._now is None else self._now

    @override
    def run_in_executor(  # type: ignore[override]  # asyncio's stub uses type variables
        self, executor: Any, func: Callable[..., Any], *args: Any
    ) -> "asyncio.Future[Any]":
        """Call `func` in a thread or process. The clock does not jump until the call returns."""
        future = super().run_in_executor(executor, func, *args)
        self._calls += 1
        future.add_done_callback(self._end_call)
        return future

    @override
    async def shutdown_default_executor(self, *timeout: float | None) -> None:
        """Shut down the executor. The clock does not jump while the executor's threads end."""
        self._calls += 1
        await super().shutdown_default_executor(*timeout)

    def _end_call(self, _future: "asyncio.Future[Any]") -> None:
        self._calls -= 1

    def _can_jump(self) -> bool:
        return (
            self._now is not None
            and self._calls == 0
            and len(self._virtual_selector.get_map()) == self._own_files
        )

    def _advance(self, seconds: float) -> None:
        if self._now is not None:
            self._now += seconds


class _Selector(selectors.DefaultSelector):
    """A selector that does not wait if `can_jump` returns True. It advances the clock instead."""

    def __init__(self, can_jump: Callable[[], bool], advance: Callable[[float], None]) -> None:
        super().__init__()
        self._can_jump, self._advance = can_jump, advance

    @override
    def select(self, timeout: float | None = None) -> Events:
        """Return the files that are ready. Wait at most `timeout` seconds on the loop's clock."""
        if timeout is None or timeout <= 0 or not self._can_jump():
            return self._wait(timeout)
        events = super().select(0)
        if not events:
            self._advance(timeout)
        return events

    def _wait(self, timeout: float | None) -> Events:
        began = time.monotonic()
        events = super().select(timeout)
        waited = time.monotonic() - began
        if timeout is None or timeout > 0:
            self._advance(waited if events or timeout is None else max(waited, timeout))
        return events
