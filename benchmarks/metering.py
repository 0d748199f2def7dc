"""The cost of measuring and remembering messages: requests with `BUS_DISCOVERY` on and off.

usage: python -m benchmarks.metering [--rounds 40] [--calls 1000]

In each round the two buses take turns, on the same broker and in the same process, with 100
requests in flight. A busy minute of the machine therefore affects both. The result is the median of
the ratios of all rounds. Caller and worker share one event loop, so both sides of a request count.
"""

import argparse
import asyncio
import gc
import os
import statistics
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Literal

from pydantic import SecretStr

from bus import Bus, Message, Request, Router, Settings, contract
from bus.testing import MemoryBuses, running_broker

__all__ = ["Measured", "Reply", "main"]

IN_FLIGHT = 100
REQUIRED_RATIO = 0.95
"""The promised rate with measurements, as a part of the rate without."""


class Reply(Message):
    """The reply."""

    number: int


@contract("metering.on", version=1, idempotent=True)
class Measured(Request[Reply]):
    """A request to the service that measures."""

    number: int


@contract("plain.off", version=1, idempotent=True)
class Plain(Request[Reply]):
    """A request to the service that does not measure."""

    number: int


measured, plain = Router("metering"), Router("plain")


@measured.request(Measured, concurrency=IN_FLIGHT)
async def answer(request: Measured) -> Reply:
    """Return the number of the request."""
    return Reply(number=request.number)


@plain.request(Plain, concurrency=IN_FLIGHT)
async def answer_plain(request: Plain) -> Reply:
    """Return the number of the request."""
    return Reply(number=request.number)


Opener = Callable[[str, str], Awaitable[Bus]]
"""A function that returns an open bus: of a service, with `discovery` on or off."""


@dataclass(frozen=True, slots=True)
class Cost:
    """The cost of a request, in microseconds."""

    elapsed: float
    processor: float
    """Time of the processor in this process. Other programs of the machine hardly change it."""


async def measure(send: Callable[[int], Awaitable[Reply]], calls: int) -> Cost:
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


Pairs = list[tuple[Cost, Cost]]
"""The cost with and without measurements, for each round."""


async def alternate(open_bus: Opener, rounds: int, calls: int) -> Pairs:
    """Measure the two services in turns."""
    async with AsyncExitStack() as stack:
        buses = {}
        for mode, router in (("on", measured), ("off", plain)):
            worker = await open_bus(router.name, mode)
            await stack.enter_async_context(worker.serving(router))
            buses[mode] = await open_bus(f"caller-{mode}", mode)

        async def on() -> Cost:
            return await measure(lambda each: buses["on"].request(Measured(number=each)), calls)

        async def off() -> Cost:
            return await measure(lambda each: buses["off"].request(Plain(number=each)), calls)

        await on()  # warm-up
        await off()
        pairs = []
        for number in range(rounds):
            # The order changes, because the first of two runs can have an advantage.
            if number % 2:
                first = await on()
                pairs.append((first, await off()))
            else:
                first = await off()
                pairs.append((await on(), first))
        return pairs


async def in_memory(rounds: int, calls: int) -> Pairs:
    """Measure on the broker in memory."""
    async with MemoryBuses() as buses:
        return await alternate(
            lambda service, mode: buses.bus(service, discovery=mode), rounds, calls
        )


async def on_rabbitmq(url: str, rounds: int, calls: int) -> Pairs:
    """Measure on RabbitMQ."""
    async with AsyncExitStack() as stack:

        async def open_bus(service: str, mode: str) -> Bus:
            discovery: Literal["on", "off"] = "on" if mode == "on" else "off"
            settings = Settings(url=SecretStr(url), auth="off", discovery=discovery)
            return await stack.enter_async_context(Bus(service, settings=settings))

        return await alternate(open_bus, rounds, calls)


def report(place: str, pairs: Sequence[tuple[Cost, Cost]]) -> float:
    """Print the medians, and return the median ratio of the processor's time."""
    on, off = ([pair[side].processor for pair in pairs] for side in (0, 1))
    elapsed = [off.elapsed / on.elapsed for on, off in pairs]
    ratios = [without / measured for measured, without in zip(on, off, strict=True)]
    low, ratio, high = statistics.quantiles(ratios, n=4)
    e_low, e_ratio, e_high = statistics.quantiles(elapsed, n=4)
    added = statistics.median(a - b for a, b in zip(on, off, strict=True))
    print(
        f"{place}: {statistics.median(on):.0f} µs of the processor for a request with "
        f"measurements, {statistics.median(off):.0f} without, {added:+.1f} µs; "
        f"off/on {ratio:.3f} (quartiles {low:.3f} to {high:.3f}); "
        f"by the clock {e_ratio:.3f} ({e_low:.3f} to {e_high:.3f}); "
        f"{len(pairs)} rounds, load {os.getloadavg()[0]:.1f}"
    )
    return ratio


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print the medians, and return 1 if a ratio is below the required one."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.metering", description=__doc__)
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--calls", type=int, default=1000)
    options = parser.parse_args(arguments)
    ratios = [report("in memory", asyncio.run(in_memory(options.rounds, options.calls)))]
    with running_broker(os.environ) as broker:
        pairs = asyncio.run(on_rabbitmq(broker.url, options.rounds, options.calls))
        ratios.append(report("on RabbitMQ", pairs))
    return int(min(ratios) < REQUIRED_RATIO)


if __name__ == "__main__":
    sys.exit(main())
