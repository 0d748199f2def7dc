"""An event loop on which hours take no time: what waits for the clock alone is not waited for.

Chosen over `looptime` (0.9, kept, works with Python 3.11 to 3.13): that patches the loops of every test of a run as soon as it is
installed, turns the loop 42 times before each step, and moves its clock while threads work; here time is one loop's own matter.
"""

import asyncio
import selectors
import time
from collections.abc import Callable
from typing import Any

from typing_extensions import override

__all__ = ["VirtualLoop", "wall_clock"]

EPOCH = 1_750_000_000.0
"""Seconds since 1970 (June 2025) at the loop's time 0; any moment would do."""

Events = list[tuple[selectors.SelectorKey, int]]


def wall_clock() -> float:
    """Seconds since the epoch on the running loop's clock."""
    return EPOCH + asyncio.get_running_loop().time()


class VirtualLoop(asyncio.SelectorEventLoop):
    """A loop in real time until `skip_waits`. From then on its clock stands while code runs, and jumps where all is idle.

    It jumps only while nothing outside can wake the loop: no call in an executor is under way, and no socket, pipe or
    child process is watched. Else it waits as any loop does, and its clock goes on with the real one.
    A thread of another making that calls back with `call_soon_threadsafe` is not seen.
    """

    def __init__(self) -> None:
        self._now: float | None = None
        self._calls = 0
        self._watched = _Selector(self._jumps, self._advance)
        super().__init__(self._watched)
        self._own_files = len(self._watched.get_map())

    def skip_waits(self) -> None:
        """Begin to jump."""
        self._now = self.time()

    @override
    def time(self) -> float:
        """Seconds on this loop's clock."""
        return super().time() if self._now is None else self._now

    @override
    def run_in_executor(  # type: ignore[override]  # asyncio's stub has type variables here
        self, executor: Any, func: Callable[..., Any], *args: Any
    ) -> "asyncio.Future[Any]":
        """Call in a thread or process; time is real until it is done."""
        future = super().run_in_executor(executor, func, *args)
        self._calls += 1
        future.add_done_callback(self._returned)
        return future

    @override
    async def shutdown_default_executor(self, *timeout: float | None) -> None:
        """Wait for the executor's threads, which takes real time."""
        self._calls += 1
        await super().shutdown_default_executor(*timeout)

    def _returned(self, _future: "asyncio.Future[Any]") -> None:
        self._calls -= 1

    def _jumps(self) -> bool:
        return (
            self._now is not None
            and self._calls == 0
            and len(self._watched.get_map()) == self._own_files
        )

    def _advance(self, seconds: float) -> None:
        if self._now is not None:
            self._now += seconds


class _Selector(selectors.DefaultSelector):
    """Waits for files, or has the clock jump in place of waiting."""

    def __init__(self, jumps: Callable[[], bool], advance: Callable[[float], None]) -> None:
        super().__init__()
        self._jumps, self._advance = jumps, advance

    @override
    def select(self, timeout: float | None = None) -> Events:
        """What is ready, at the latest after `timeout` seconds on the loop's clock."""
        if timeout is None or timeout <= 0 or not self._jumps():
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
