"""Looking at dead letters, which changes nothing: they are delivered, read and handed back."""

import asyncio

from bus.envelope import Envelope
from bus.errors import NotFound
from bus.topology import Queue, Topology, dead_letter_queue
from bus.transport import Delivery, Transport

__all__ = ["look"]

QUIET = 0.3
"""Seconds without a further delivery after which there are no more."""


async def look(transport: Transport, queue: str, *, limit: int = 100, timeout: float = 5) -> list[Envelope]:
    """At most `limit` dead letters of the work queue `queue`, oldest first, within about `timeout` seconds.

    Their `headers` say why: `dead-code`, `dead-reason`, `dead-attempts`, `dead-at` (ms since the epoch), `dead-by`.
    Raises `NotFound` where the queue has no dead-letter queue.
    """
    dead = Queue(name=dead_letter_queue(queue), purpose="dead")
    arrived: asyncio.Queue[Delivery] = asyncio.Queue()
    consumption = await transport.consume(dead, Topology(), prefetch=limit, on_delivery=arrived.put_nowait)
    found: list[Delivery] = []
    try:
        async with asyncio.timeout(timeout):
            await consumption.wait_ready()
            while len(found) < limit:
                async with asyncio.timeout(QUIET if found else timeout / 2):
                    found.append(await arrived.get())
    except TimeoutError:
        if not consumption.ready:
            raise NotFound(f"{dead.name} cannot be read: {consumption.trouble or 'no answer'}") from None
    finally:
        await consumption.cancel()
        while not arrived.empty():
            found.append(arrived.get_nowait())
        for delivery in found:
            await delivery.requeue()
    return [delivery.envelope for delivery in found[:limit]]
