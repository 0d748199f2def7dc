"""The time that other programs of a busy machine take from the process of a test."""

import asyncio
import time
from typing import Self

TICK = 0.005
"""Seconds between two looks. A shorter delay is not counted, because timers are not exact."""


class StolenTime:
    """A measurement of the time in which this process could have run, and did not run.

    A test adds it to the upper bound of a duration. The time that the process itself needs is not
    counted, so the bound stays strict for the bus.
    """

    def __init__(self) -> None:
        self._delays: list[tuple[float, float]] = []
        """The end of each delay by `time.perf_counter`, and its seconds."""

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._look())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()
        await asyncio.wait([self._task])

    async def _look(self) -> None:
        while True:
            began, used = time.perf_counter(), time.process_time()
            await asyncio.sleep(TICK)
            ended = time.perf_counter()
            stolen = ended - began - TICK - (time.process_time() - used)
            if stolen > TICK:
                self._delays.append((ended, stolen))

    def between(self, begin: float, end: float) -> float:
        """Return the stolen seconds between two moments of `time.perf_counter`.

        Call it some milliseconds after the end, when the last delay is known.
        """
        return sum(seconds for ended, seconds in self._delays if begin < ended <= end + TICK)
