"""Cancellation of the transport's consumers, without a loss of deliveries."""

import asyncio
import logging
from collections.abc import Sequence
from contextlib import suppress

from bus.errors import BusError
from bus.messaging.ports.transport import ConsumerHandle

__all__ = ["REGISTER_TIMEOUT_SECONDS", "cancel_all", "cancel_consumer", "wait_registered"]

log = logging.getLogger("bus")

REGISTER_TIMEOUT_SECONDS = 5.0
"""Seconds that a pause waits for a consumer that is registering. Registration takes
milliseconds, unless the queue does not exist."""


async def wait_registered(consumer: ConsumerHandle) -> None:
    """Wait until a consumer is registered, so that it can be cancelled.

    If the consumer were cancelled earlier, the broker would requeue the consumer's deliveries.
    """
    with suppress(TimeoutError):
        async with asyncio.timeout(REGISTER_TIMEOUT_SECONDS):
            await consumer.wait_ready()


async def cancel_all(consumers: Sequence[ConsumerHandle]) -> None:
    """Cancel consumers at the same time."""
    await asyncio.gather(*(cancel_consumer(consumer) for consumer in consumers))


async def cancel_consumer(consumer: ConsumerHandle) -> None:
    """Cancel a consumer. An error is only logged: the channel is closed, and delivers nothing."""
    try:
        await consumer.cancel()
    except BusError as error:
        facts = {"queue": consumer.name, "why": str(error)}
        log.warning(
            "the consumer of %s could not be cancelled: %s", consumer.name, error, extra=facts
        )
