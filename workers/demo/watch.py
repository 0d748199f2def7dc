"""The watch for a worker or a broker that ends while the demonstration waits for it."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from typing import Any, TypeVar
from uuid import uuid4

from bus import Bus, DeadlineExceeded, NotFound, NotServed, Sender, Unavailable
from contracts.documentation.client import DocumentationClient
from contracts.transcription.client import TranscriptionClient

__all__ = [
    "POLL_INTERVAL",
    "WORK_QUEUES",
    "CountConsumers",
    "answer_of",
    "watch_broker",
    "watch_services",
    "watched",
]

POLL_INTERVAL = 0.25
"""Seconds between two checks of the connection and of the workers."""
PROBE_INTERVAL = 2.0
"""Seconds between two requests to a worker that another program has started."""
PATIENCE = 10.0
"""Seconds in which a connection or a worker can return."""

T = TypeVar("T")
CountConsumers = Callable[[str], Awaitable[int | None]]
"""A function that returns the number of consumers of a queue, or None if it is not known."""
WORK_QUEUES = {
    "transcription": "transcription.jobs.transcribe.v1",
    "documentation": "documentation.jobs.generate-documents.v1",
}
"""A queue that the worker of each service consumes as long as it runs."""


async def watched(work: Coroutine[Any, Any, T], *watches: Coroutine[Any, Any, None]) -> T:
    """Return the result of `work`, or raise the error of the first watch that fails.

    A watch never returns. If it fails, `work` is cancelled.
    """
    working = asyncio.ensure_future(work)
    watching = [asyncio.ensure_future(watch) for watch in watches]
    try:
        await asyncio.wait([working, *watching], return_when=asyncio.FIRST_COMPLETED)
        for watch in watching:
            if watch.done() and not working.done():
                watch.result()
        return await working
    finally:
        for task in (working, *watching):
            task.cancel()
        await asyncio.gather(working, *watching, return_exceptions=True)


async def watch_broker(bus: Bus) -> None:
    """Raise `Unavailable` when the bus has not been connected for `PATIENCE` seconds."""
    loop = asyncio.get_running_loop()
    last = loop.time()
    while True:
        if bus.ready:
            last = loop.time()
        elif loop.time() - last > PATIENCE:
            raise Unavailable(
                f"the broker has not answered for {PATIENCE:.0f} s. "
                "Start it, and run the demonstration again."
            )
        await asyncio.sleep(POLL_INTERVAL)


async def watch_services(
    bus: Bus, services: tuple[str, ...], count_consumers: CountConsumers
) -> None:
    """Raise `Unavailable` when the worker of a service has not been there for `PATIENCE` seconds.

    A worker that is too busy to answer is not missing. Requests to a worker that has ended look the
    same for 60 s, until the broker deletes their queue. The number of consumers tells them apart.
    """
    loop = asyncio.get_running_loop()
    last = dict.fromkeys(services, loop.time())
    while True:
        await asyncio.sleep(PROBE_INTERVAL)
        for service in services:
            if await _is_served(bus, service, count_consumers):
                last[service] = loop.time()
            elif loop.time() - last[service] > PATIENCE:
                raise Unavailable(
                    f"{service}: its worker has not been running for {PATIENCE:.0f} s. "
                    "Start it, and run the demonstration again."
                )


async def _is_served(bus: Bus, service: str, count_consumers: CountConsumers) -> bool:
    try:
        await answer_of(bus, service)
    except NotServed:
        return False
    except DeadlineExceeded:
        return await count_consumers(WORK_QUEUES[service]) != 0  # not 0: the worker is busy
    except Unavailable:
        return True  # `watch_broker` reports the lost connection
    return True


async def answer_of(bus: Sender, service: str) -> None:
    """Request a record that does not exist from the worker of a service.

    Raises:
        NotServed: The worker does not run.
        DeadlineExceeded: The worker is too busy to answer within 2 s.
    """
    with suppress(NotFound):
        if service == "transcription":
            await TranscriptionClient(bus).get(uuid4(), timeout=2)
        else:
            await DocumentationClient(bus).status(uuid4(), timeout=2)
