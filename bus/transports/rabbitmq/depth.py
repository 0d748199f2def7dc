"""How many messages wait in a queue, by passive declaration: nothing is taken out and nothing is made."""

from typing import Protocol

from aiormq.channel import Channel
from aiormq.exceptions import ChannelNotFoundEntity

from bus.errors import NotFound
from bus.transports.rabbitmq.faults import translating
from bus.transports.rabbitmq.link import RPC_TIMEOUT, quietly_closed

__all__ = ["ready_in"]


class Channels(Protocol):
    """A connection."""

    async def channel(self, *, confirms: bool) -> Channel:
        """A new channel on it."""
        ...


async def ready_in(connection: Channels, queue: str) -> int:
    """Messages that are ready in `queue`; `NotFound`. On a channel of its own: the broker closes it where there is no such queue."""
    with translating(f"looking at {queue}"):
        channel = await connection.channel(confirms=False)
        try:
            declared = await channel.queue_declare(queue, passive=True, timeout=RPC_TIMEOUT)
        except ChannelNotFoundEntity:
            raise NotFound(f"there is no queue {queue}, or its node is down") from None
        finally:
            await quietly_closed(channel)
    return declared.message_count or 0
