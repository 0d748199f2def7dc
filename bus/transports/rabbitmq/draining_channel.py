"""A channel that still accepts acks after the broker has cancelled the channel's consumer."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Protocol

from aiormq.channel import Channel

from bus.errors import BusError
from bus.transports.rabbitmq.exceptions import map_errors
from bus.transports.rabbitmq.open_connection import CLOSE_TIMEOUT_SECONDS

__all__ = ["DrainingChannel"]

log = logging.getLogger("bus.rabbitmq")


class UnsettledDeliveries(Protocol):
    """The parts of a consumer channel that `DrainingChannel` uses."""

    idle: asyncio.Event
    """Event that is set when all deliveries are settled."""

    def release(self) -> None:
        """Stop settling deliveries. Call this before the channel is closed."""
        ...


class DrainingChannel:
    """A channel without a consumer that stays open until its deliveries are settled.

    Since RabbitMQ 4.3, a consumer timeout requeues the overdue delivery and cancels the consumer.
    The other deliveries of the consumer remain valid, and can be acked on this channel. If the
    channel were closed, the broker would requeue the other deliveries as well. It would also
    increase their delivery counts.

    `end` and `close` close the channel even if deliveries are unsettled.
    """

    def __init__(
        self,
        channel: Channel,
        deliveries: UnsettledDeliveries,
        tag: str,
        *,
        leave: Callable[[Channel], Awaitable[None]],
    ) -> None:
        """Start to drain a channel.

        Args:
            channel: The channel to drain.
            deliveries: The consumer channel with the unsettled deliveries.
            tag: The tag of the consumer that the broker cancelled.
            leave: Function that closes the channel.
        """
        self._channel = channel
        self._deliveries = deliveries
        self._tag = tag
        self._leave = leave
        self._closing = asyncio.Event()
        self._task = asyncio.create_task(self._drain(), name=f"draining {tag}")

    @property
    def ended(self) -> bool:
        """True if the channel is closed."""
        return self._task.done()

    async def _drain(self) -> None:
        try:
            await self._cancel_again()
            waits = [
                asyncio.ensure_future(event.wait())
                for event in (self._deliveries.idle, self._closing)
            ]
            await asyncio.wait((*waits, self._channel.closing), return_when=asyncio.FIRST_COMPLETED)
            for wait in waits:
                wait.cancel()
        finally:
            self._deliveries.release()
            await self._leave(self._channel)

    async def _cancel_again(self) -> None:
        """Cancel the consumer, although the broker has already cancelled it.

        Without this call, a late ack would make RabbitMQ 4.3 activate the consumer again. The old
        consumer and the new consumer would receive messages.
        """
        if self._channel.is_closed:
            return
        try:
            with map_errors("cancelling a consumer that the broker has cancelled"):
                await self._channel.basic_cancel(self._tag, timeout=CLOSE_TIMEOUT_SECONDS)
        except BusError as error:
            log.debug(
                "the cancelled consumer %s was not cancelled again: %s",
                self._tag,
                error,
                extra={"consumer_tag": self._tag, "why": str(error)},
            )

    def end(self) -> None:
        """Close the channel in the background. The broker requeues unacked messages."""
        self._closing.set()

    async def close(self) -> None:
        """Close the channel, and wait until it is closed."""
        self.end()
        await asyncio.wait([self._task], timeout=2 * CLOSE_TIMEOUT_SECONDS)
