"""Measurements in turns, so that a busy minute of the machine affects all sides."""

import asyncio
import gc
import os
import statistics
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

__all__ = ["IN_FLIGHT", "Cost", "load", "measure", "quartiles", "take_turns"]

IN_FLIGHT = 100
"""Requests in flight."""

S = TypeVar("S")


@dataclass(frozen=True, slots=True)
class Cost:
    """The cost of a request, in microseconds."""

    elapsed: float
    processor: float
    """Time of the processor in this process. Other programs of the machine hardly change it."""


async def measure(send: Callable[[int], Awaitable[object]], calls: int) -> Cost:
    """Send requests, `IN_FLIGHT` at a time, and return the mean cost."""
    numbers = iter(range(calls))

    async def caller() -> None:
        for number in numbers:
            await send(number)

    gc.collect()
    began, used = time.perf_counter(), time.process_time()
    await asyncio.gather(*(caller() for _ in range(IN_FLIGHT)))
    elapsed, processor = time.perf_counter() - began, time.process_time() - used
    return Cost(elapsed / calls * 1e6, processor / calls * 1e6)


async def take_turns(
    sides: Sequence[Callable[[], Awaitable[S]]], rounds: int
) -> list[tuple[S, ...]]:
    """Measure all sides in each round, and return their results by round, in the order of `sides`.

    Each side has one turn as a warm-up. The first side changes from round to round, because the
    first of several turns can have an advantage.
    """
    for side in sides:
        await side()
    found = []
    for number in range(rounds):
        results = {}
        for step in range(len(sides)):
            place = (number + step) % len(sides)
            results[place] = await sides[place]()
        found.append(tuple(results[place] for place in range(len(sides))))
    return found


def quartiles(values: Sequence[float], digits: int = 3) -> str:
    """Return the median and the quartiles of at least two values, as text."""
    low, median, high = statistics.quantiles(values, n=4)
    return f"{median:.{digits}f} (quartiles {low:.{digits}f} to {high:.{digits}f})"


def load() -> str:
    """Return the load of the machine, as text."""
    return f"load {os.getloadavg()[0]:.1f}"
