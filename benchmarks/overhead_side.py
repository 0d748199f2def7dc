"""One side of `benchmarks.overhead`: a caller and a worker in one process, of one version.

usage: python -m benchmarks.overhead_side SETTINGS [URL]

SETTINGS are the values of `ServiceDefaults` as JSON, or `{}`, which any version accepts. Without a
URL the broker is in memory. The process prints `ready`. For each number on its standard input, it
sends this number of requests, and prints their cost as JSON.
"""

import asyncio
import json
import sys
from contextlib import AsyncExitStack
from dataclasses import asdict
from importlib import import_module
from typing import Any

from pydantic import SecretStr

from benchmarks.pairs import IN_FLIGHT, measure
from bus import Bus, Message, Request, Router, Settings, contract
from bus.testing import MemoryBuses

__all__ = ["main"]


class Echoed(Message):
    """The reply."""

    number: int


@contract("overhead.echo", version=1, idempotent=True)
class Echo(Request[Echoed]):
    """A request that is answered at once."""

    number: int


router = Router("overhead")


@router.request(Echo, concurrency=IN_FLIGHT)
async def echo(request: Echo) -> Echoed:
    """Return the number of the request."""
    return Echoed(number=request.number)


async def open_bus(stack: AsyncExitStack, service: str, settings: dict[str, Any], url: str) -> Bus:
    """Return an open bus on RabbitMQ."""
    chosen = Settings(url=SecretStr(url), auth="off", **settings)
    return await stack.enter_async_context(Bus(service, settings=chosen))


async def main(defaults: dict[str, Any], url: str | None) -> None:
    """Measure until the standard input ends."""
    settings: dict[str, Any] = {}
    if defaults:
        # An earlier version has no such class.
        settings["service_defaults"] = import_module("bus").ServiceDefaults(**defaults)
    async with AsyncExitStack() as stack:
        if url is None:
            buses = await stack.enter_async_context(MemoryBuses())
            worker = await buses.bus(router.name, **settings)
            caller = await buses.bus("caller", **settings)
        else:
            worker = await open_bus(stack, router.name, settings, url)
            caller = await open_bus(stack, "caller", settings, url)
        await stack.enter_async_context(worker.serving(router))
        print("ready", flush=True)
        while line := await asyncio.to_thread(sys.stdin.readline):
            cost = await measure(lambda number: caller.request(Echo(number=number)), int(line))
            print(json.dumps(asdict(cost)), flush=True)


if __name__ == "__main__":
    asyncio.run(main(json.loads(sys.argv[1]), sys.argv[2] if sys.argv[2:] else None))
