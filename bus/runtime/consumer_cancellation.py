"""Cancellation of the transport's consumers, without a loss of deliveries."""

import asyncio
import logging
from collections.abc import Sequence
from contextlib import suppress

from bus.errors import BusError
from bus.messaging.ports.transport import ConsumerHandle

__all__ = [
    "REGISTER_TIMEOUT_SECONDS",
    "AckHold",
    "cancel_all",
    "cancel_consumer",
    "wait_registered",
]

log = logging.getLogger("bus")

REGISTER_TIMEOUT_SECONDS = 5.0
"""Seconds that a pause or an ack waits for a consumer that is registering. Registration takes
milliseconds, unless the queue does not exist."""


class AckHold:
    """Delays the acks of deliveries until their consumer is cancelled.

    If a consumer of a quorum queue is cancelled, RabbitMQ requeues the messages that are in flight
    to the consumer, and counts lost deliveries. While a consumer with a prefetch of 1 has an
    unacked delivery, no message is in flight to the consumer.

    The delay ends after `REGISTER_TIMEOUT_SECONDS` at the latest. Then the consumer continues, with
    one message at a time.
    """

    def __init__(self) -> None:
        """Start to delay acks."""
        self._ended = asyncio.Event()
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(REGISTER_TIMEOUT_SECONDS, self._ended.set)

    def end(self) -> None:
        """Permit the acks. A second call has no effect."""
        self._timer.cancel()
        self._ended.set()

    async def wait(self) -> None:
        """Wait until acks are permitted."""
        await self._ended.wait()


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
