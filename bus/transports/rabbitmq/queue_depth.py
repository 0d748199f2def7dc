"""How much waits in queues and how many consume them, by passive declaration: nothing is taken out and nothing is made."""

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from aio_pika.abc import AbstractConnection
from aiormq.abc import AbstractChannel
from aiormq.channel import Channel
from aiormq.exceptions import AMQPError, ChannelNotFoundEntity

from bus.errors import NotFound
from bus.transports.rabbitmq.connection import RPC_TIMEOUT_SECONDS, close_quietly
from bus.transports.rabbitmq.exceptions import map_errors
from bus.transports.rabbitmq.handshake import connected, reason

__all__ = ["QueueDepth", "depth_by", "depths", "ready_in"]

TIMEOUT_SECONDS = 5.0
"""Seconds for connecting, and again for one queue, where a person waits; a declaration takes a millisecond."""


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueDepth:
    """What the broker says of one queue now."""

    ready: int = 0
    consumers: int = 0
    missing: bool = False
    last_error: str | None = None
    """Why it could not be told, in the broker's words; these name objects, never contents."""


class Channels(Protocol):
    """A connection."""

    async def channel(self, *, confirms: bool) -> Channel:
        """A new channel on it."""
        ...


async def depth_by(channel: AbstractChannel, queue: str) -> QueueDepth:
    """Ask on a channel of its own: the broker closes it where there is no such queue.

    `ChannelNotFoundEntity` where the queue's node is down: the same code, and it is there all the same.
    """
    try:
        declared = await channel.queue_declare(queue, passive=True, timeout=RPC_TIMEOUT_SECONDS)
    except ChannelNotFoundEntity as error:
        if "no queue" not in reason(error):
            raise
        return QueueDepth(missing=True)
    return QueueDepth(ready=declared.message_count or 0, consumers=declared.consumer_count or 0)


async def ready_in(connection: Channels, queue: str) -> int:
    """Messages that are ready in `queue`; `NotFound`."""
    with map_errors(f"looking at {queue}"):
        channel = await connection.channel(confirms=False)
        try:
            depth = await depth_by(channel, queue)
        except ChannelNotFoundEntity:
            depth = QueueDepth(missing=True)
        finally:
            await close_quietly(channel)
    if depth.missing:
        raise NotFound(f"there is no queue {queue}, or its node is down")
    return depth.ready


async def depths(url: str, names: Iterable[str]) -> dict[str, QueueDepth]:
    """Ask for each of `names`. Errors as of `probe`; what is wrong with a single queue is in its `Depth`.

    A question renews the lease of a queue that expires when nobody uses it: do not ask for request queues again and again.
    """
    wanted = list(names)
    if not wanted:
        return {}
    async with connected(url, TIMEOUT_SECONDS) as connection:
        return {name: await _depth(connection, name) for name in wanted}


async def _depth(connection: AbstractConnection, name: str) -> QueueDepth:
    channel = await connection.channel(publisher_confirms=False)
    try:
        async with asyncio.timeout(TIMEOUT_SECONDS):
            return await depth_by(await channel.get_underlay_channel(), name)
    except TimeoutError:
        return QueueDepth(last_error=f"no answer within {TIMEOUT_SECONDS:g} s")
    except AMQPError as error:
        return QueueDepth(last_error=reason(error))
    finally:
        if not channel.is_closed and not connection.is_closed:
            await channel.close()
