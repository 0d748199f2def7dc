"""One side of `benchmarks.overhead`: a caller and a worker in one process, of one version.

usage: python -m benchmarks.overhead_side SETTINGS [URL]

SETTINGS are the values of `ServiceDefaults` as JSON, or `{}`, which any version accepts. Without a
URL the broker is in memory. The process prints `ready`. For each line `WORK NUMBER` on its standard
input, it does the work this number of times, and prints the cost as JSON. The works are `request`,
`event` (until it is handled) and `job` (until its result has arrived).
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
from bus import Bus, Event, Job, Message, Request, Router, Settings, contract
from bus.testing import MemoryBuses

__all__ = ["main"]


class Echoed(Message):
    """The reply."""

    number: int


@contract("overhead.echo", version=1, idempotent=True)
class Echo(Request[Echoed]):
    """A request that is answered at once."""

    number: int


@contract("overhead.happened", version=1)
class Happened(Event):
    """An event with one subscription."""

    number: int


@contract("overhead.work", version=1)
class Work(Job[Echoed]):
    """A job with a result, without a store."""

    number: int


router = Router("overhead")
handled: dict[int, asyncio.Event] = {}
"""Events that a caller waits for, by number."""


@router.request(Echo, concurrency=IN_FLIGHT)
async def echo(request: Echo) -> Echoed:
    """Return the number of the request."""
    return Echoed(number=request.number)


@router.event(Happened, concurrency=IN_FLIGHT)
async def happened(event: Happened) -> None:
    """Tell the caller that its event is handled."""
    handled.pop(event.number).set()


@router.job(Work, concurrency=IN_FLIGHT)
async def work(job: Work) -> Echoed:
    """Return the number of the job."""
    return Echoed(number=job.number)


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

        async def event(number: int) -> None:
            seen = handled[number] = asyncio.Event()
            await worker.publish(Happened(number=number))
            await seen.wait()

        async def job(number: int) -> None:
            handle = await caller.submit(Work(number=number))
            await handle.result(timeout=60)

        works = {
            "request": lambda number: caller.request(Echo(number=number)),
            "event": event,
            "job": job,
        }
        print("ready", flush=True)
        while line := await asyncio.to_thread(sys.stdin.readline):
            name, calls = line.split()
            cost = await measure(works[name], int(calls))
            print(json.dumps(asdict(cost)), flush=True)


if __name__ == "__main__":
    asyncio.run(main(json.loads(sys.argv[1]), sys.argv[2] if sys.argv[2:] else None))
