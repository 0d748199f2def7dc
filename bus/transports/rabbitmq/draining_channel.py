"""A channel that has outlived its consumer: the broker cancelled it while something that came was not settled."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Protocol

from aiormq.channel import Channel

from bus.errors import BusError
from bus.transports.rabbitmq.connection import CLOSE_TIMEOUT_SECONDS
from bus.transports.rabbitmq.exceptions import map_errors

__all__ = ["DrainingChannel"]

log = logging.getLogger("bus.rabbitmq")


class UnsettledDeliveries(Protocol):
    """What came on the channel."""

    idle: asyncio.Event

    def release(self) -> None:
        """The channel is about to be closed."""
        ...


class DrainingChannel:
    """Keeps the channel until all of that is settled, or the channel is closed, or `end`.

    Since RabbitMQ 4.3 a consumer timeout takes back what is overdue and cancels its consumer; what else the consumer has is still its
    own, and can be acked here. Closing the channel would give that away, too, and count it as lost.
    """

    def __init__(
        self,
        channel: Channel,
        held: UnsettledDeliveries,
        tag: str,
        *,
        leave: Callable[[Channel], Awaitable[None]],
    ) -> None:
        """`tag` is its consumer's; `leave` closes it."""
        self._channel = channel
        self._held = held
        self._tag = tag
        self._leave = leave
        self._closing = asyncio.Event()
        self._task = asyncio.create_task(self._stay(), name=f"lingering {tag}")

    @property
    def ended(self) -> bool:
        """Whether the channel is gone."""
        return self._task.done()

    async def _stay(self) -> None:
        try:
            await self._stay_cancelled()
            waits = [
                asyncio.ensure_future(event.wait()) for event in (self._held.idle, self._closing)
            ]
            await asyncio.wait((*waits, self._channel.closing), return_when=asyncio.FIRST_COMPLETED)
            for wait in waits:
                wait.cancel()
        finally:
            self._held.release()
            await self._leave(self._channel)

    async def _stay_cancelled(self) -> None:
        """A late ack would revive the consumer on 4.3, and bring messages here as well as on its successor's channel."""
        if self._channel.is_closed:
            return
        try:
            with map_errors("cancelling a consumer that the broker has cancelled"):
                await self._channel.basic_cancel(self._tag, timeout=CLOSE_TIMEOUT_SECONDS)
        except BusError as error:
            log.debug("a cancelled consumer was not cancelled again", extra={"why": str(error)})

    def end(self) -> None:
        """Wait no longer, and close the channel: the broker takes back what is unacked."""
        self._closing.set()

    async def close(self) -> None:
        """The same; returns when it is closed."""
        self.end()
        await asyncio.wait([self._task], timeout=2 * CLOSE_TIMEOUT_SECONDS)
