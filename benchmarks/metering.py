"""The cost of measuring and remembering messages: requests with `BUS_DISCOVERY` on and off.

usage: python -m benchmarks.metering [--rounds 40] [--calls 1000]

In each round the two buses take turns, on the same broker and in the same process, with 100
requests in flight. A busy minute of the machine therefore affects both. The result is the median of
the ratios of all rounds. Caller and worker share one event loop, so both sides of a request count.
"""

import argparse
import asyncio
import os
import statistics
import sys
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from typing import Literal

from pydantic import SecretStr

from benchmarks.pairs import IN_FLIGHT, Cost, load, measure, quartiles, take_turns
from bus import Bus, Message, Request, Router, Settings, contract
from bus.testing import MemoryBuses, running_broker

__all__ = ["Measured", "Reply", "main"]

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


Pairs = list[tuple[Cost, ...]]
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

        return await take_turns((on, off), rounds)


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


def report(place: str, pairs: Pairs) -> float:
    """Print the medians, and return the median ratio of the processor's time."""
    on, off = ([pair[side].processor for pair in pairs] for side in (0, 1))
    ratios = [without / measured for measured, without in zip(on, off, strict=True)]
    added = statistics.median(a - b for a, b in zip(on, off, strict=True))
    print(
        f"{place}: {statistics.median(on):.0f} µs of the processor for a request with "
        f"measurements, {statistics.median(off):.0f} without, {added:+.1f} µs; "
        f"off/on {quartiles(ratios)}; "
        f"by the clock {quartiles([off.elapsed / on.elapsed for on, off in pairs])}; "
        f"{len(pairs)} rounds, {load()}"
    )
    return statistics.median(ratios)


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
