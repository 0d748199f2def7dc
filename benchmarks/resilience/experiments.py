"""The experiments: a constant load, an overload that ends, and a service that fails."""

import asyncio
import gc
import random
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from typing_extensions import override

from benchmarks.resilience.callers import TIMEOUT_SECONDS, Caller, Counts
from benchmarks.resilience.server import Mode, Server
from benchmarks.resilience.variants import Variant
from bus.testing import VirtualLoop

__all__ = [
    "CALLERS",
    "LOADS",
    "MODES",
    "RATES",
    "SHOWN_SECONDS",
    "amplification",
    "goodput",
    "overload",
]

CALLERS = 200
RATES = (0.1, 1.0, 10.0)
"""Calls per second of one caller."""
LOADS = (0.25, 0.5, 0.75, 0.9, 1.0, 1.25, 1.5, 2.0, 2.5, 3.0)
"""Offered loads, as a part of the capacity."""
MODES: tuple[Mode, ...] = ("unavailable", "hangs")
WORKING_SECONDS = 10
"""Seconds before a failure, in which a caller can save tokens for retries."""
FAILING_SECONDS = {0.1: 60, 1.0: 20, 10.0: 10}
"""Seconds of a failure, by the rate of the callers. Each caller begins about six calls at least."""
SEED = 16
WARM_UP_SECONDS = 16
FAILING_LOAD = 0.5
"""Offered load on a service that fails, as a part of its capacity. No queue hides the failure."""
NORMAL, OVERLOAD = 0.7, 3.0
"""Offered load before and after the overload, and during it, as a part of the capacity."""
BEFORE_SECONDS, OVERLOAD_SECONDS, SHOWN_SECONDS = 5, 10, 45
"""Seconds before the overload, with it, and after it in the picture."""

T = TypeVar("T")


def goodput(variant: Variant, load: float, *, rate: float = 1, seconds: int = 10) -> float:
    """Return the answered calls of a constant load, as a part of the capacity.

    Args:
        variant: Policies of the callers and the server.
        load: Offered load, as a part of the capacity.
        rate: Calls per second of each caller if the load is 1. It fixes the capacity.
        seconds: Measured seconds, after a warm-up.
    """
    capacity = CALLERS * rate
    counts = simulate(variant, WARM_UP_SECONDS + seconds, lambda _: rate * load, capacity)
    good = sum(counts.good[WARM_UP_SECONDS + second] for second in range(seconds))
    return good / seconds / capacity


def overload(variant: Variant, *, after: int, rate: float = 1) -> list[float]:
    """Return the answered calls of each second, as a part of the capacity.

    The load is normal for 5 s, three times the capacity for 10 s, and then normal for `after`
    seconds.
    """
    ends = BEFORE_SECONDS + OVERLOAD_SECONDS

    def load(now: float) -> float:
        return rate * (OVERLOAD if BEFORE_SECONDS <= now < ends else NORMAL)

    capacity = CALLERS * rate
    counts = simulate(variant, ends + after, load, capacity)
    return [counts.good[second] / capacity for second in range(ends + after)]


def amplification(variant: Variant, mode: Mode, *, rate: float) -> float:
    """Return the number of sent requests for each call to a service that has begun to fail."""
    seconds = WORKING_SECONDS + FAILING_SECONDS[rate]

    def behaviour(now: float) -> Mode:
        return "works" if now < WORKING_SECONDS else mode

    counts = simulate(variant, seconds, lambda _: rate, CALLERS * rate / FAILING_LOAD, behaviour)
    failing = range(WORKING_SECONDS, seconds)
    sent, calls = (sum(each[second] for second in failing) for each in (counts.sent, counts.calls))
    return sent / calls


def simulate(
    variant: Variant,
    seconds: float,
    rate: Callable[[float], float],
    capacity: float,
    behaviour: Callable[[float], Mode] = lambda _: "works",
) -> Counts:
    """Run callers and a server in virtual time. The same arguments give the same counts.

    Args:
        variant: Policies of the callers and the server.
        seconds: Seconds in which calls are counted.
        rate: Function that returns the calls per second of each caller at a time.
        capacity: Requests that the server can handle in a second.
        behaviour: Function that returns the behaviour of the server at a time.
    """
    # The waits of the retries have jitter from the module `random`.
    state = random.getstate()
    random.seed(SEED)
    gc.disable()  # the callers live to the end, and the collector would visit them often
    try:
        return in_virtual_time(run(variant, seconds, rate, capacity, behaviour))
    finally:
        random.setstate(state)
        gc.enable()


async def run(
    variant: Variant,
    seconds: float,
    rate: Callable[[float], float],
    capacity: float,
    behaviour: Callable[[float], Mode],
) -> Counts:
    """Run callers and a server on the running loop. Its time begins at 0."""
    loop, counts = asyncio.get_running_loop(), Counts()
    server = Server(capacity, SEED, behaviour, sheds=variant.sheds)
    callers = [Caller(server, variant.policy, counts, SEED + number) for number in range(CALLERS)]
    for caller in callers:
        caller.start(lambda: rate(loop.time()))
    # The load goes on until the last counted call has ended.
    await asyncio.sleep(seconds + TIMEOUT_SECONDS)
    for caller in callers:
        caller.stop()
    for caller in callers:
        await caller.wait_idle()
    return counts


def in_virtual_time(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine on a loop that skips waits."""
    with asyncio.Runner(loop_factory=SimulatedLoop) as runner:
        return runner.run(work)


class SimulatedLoop(VirtualLoop):
    """An event loop in virtual time from its start. Its clock begins at 0.

    A fixed beginning gives the same rounding of all times, and so the same order of events.
    """

    @override
    def __init__(self) -> None:
        super().__init__()
        self._now = 0.0
