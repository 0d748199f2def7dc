"""Tests with connected buses on the broker in memory, without waits."""

import asyncio
import functools
from collections.abc import Callable, Coroutine
from typing import Any

from bus.testing import MemoryBuses, VirtualLoop, wall_clock

__all__ = ["in_memory"]


def in_memory(test: Callable[[MemoryBuses], Coroutine[Any, Any, None]]) -> Callable[[], None]:
    """Run a test with connected buses in memory. Waits for a retry tier take no time."""

    @functools.wraps(test)
    def run() -> None:
        async def with_buses() -> None:
            loop = asyncio.get_running_loop()
            assert isinstance(loop, VirtualLoop)
            loop.skip_waits()
            async with MemoryBuses(clock=wall_clock) as buses:
                await test(buses)

        with asyncio.Runner(loop_factory=VirtualLoop) as runner:
            runner.run(with_buses())

    del run.__wrapped__  # pytest would take the parameter for a fixture
    return run
