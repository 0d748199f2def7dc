"""The prefetch of consumers with an adaptive concurrency limit, which follows the limit.

The prefetch decides how many messages wait in this process and not in the queue, where another
process could take them. The process applies a lower limit at once. A higher limit has no effect
until the prefetch follows, except for requests that are acked before they run. A change registers a
new consumer at the broker, so the prefetch changes only now and then.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from bus.messaging.resilience.adaptive_limit import GradientLimit
from bus.runtime.endpoint_consumer import EndpointConsumer

__all__ = ["FOLLOW_SECONDS", "following_limits"]

log = logging.getLogger("bus")

FOLLOW_SECONDS = 30.0
"""Minimum seconds between two changes of the prefetch of a consumer."""
MIN_CHANGE = 0.2
"""Minimum difference between prefetch and limit before a change, as a share of the prefetch."""


@asynccontextmanager
async def following_limits(consumers: Sequence[EndpointConsumer]) -> AsyncIterator[None]:
    """Inside the block, let the prefetch of each consumer follow its adaptive limit.

    Args:
        consumers: The consumers. Those with a fixed limit are ignored.
    """
    tasks = [
        asyncio.create_task(_follow(each, each.state.adaptive), name=f"prefetch of {each.name}")
        for each in consumers
        if each.state.adaptive is not None
    ]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)


async def _follow(consumer: EndpointConsumer, limit: GradientLimit) -> None:
    while True:
        await asyncio.sleep(FOLLOW_SECONDS)
        earlier, settled = consumer.prefetch, limit.settled
        limit.follow(earlier)  # the last change can have failed
        if abs(settled - earlier) < MIN_CHANGE * earlier or not consumer.change_prefetch(settled):
            continue
        limit.follow(settled)
        log.info(
            "%s: the concurrency limit is now %d (before: %d)",
            consumer.name,
            settled,
            earlier,
            extra={"queue": consumer.name, "limit": settled, "earlier_limit": earlier},
        )
