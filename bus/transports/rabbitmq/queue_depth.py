"""The number of ready messages and the number of consumers of a queue.

A passive declaration returns these numbers. It does not consume messages or create queues.
"""

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from aio_pika.abc import AbstractConnection
from aiormq.abc import AbstractChannel
from aiormq.channel import Channel
from aiormq.exceptions import AMQPError, ChannelNotFoundEntity

from bus.errors import NotFound
from bus.transports.rabbitmq.exceptions import map_errors
from bus.transports.rabbitmq.handshake import connected, reason
from bus.transports.rabbitmq.open_connection import RPC_TIMEOUT_SECONDS, close_quietly

__all__ = ["QueueDepth", "depth_by", "depths", "ready_in"]

TIMEOUT_SECONDS = 5.0
"""Timeout in operator commands, in seconds. It applies to the connect and to each declaration.

A declaration takes about a millisecond.
"""
COUNT_TIMEOUT_SECONDS = 0.25
"""Seconds that RabbitMQ waits for the leader of a quorum queue to count its messages and consumers.

If the leader does not answer in time, RabbitMQ answers 0 messages and 0 consumers.
"""
COUNT_MARGIN_SECONDS = 0.05
"""Maximum difference between the network times of two calls on one channel."""
MAX_CONCURRENT_READS = 50
"""Maximum number of queues that are read at a time, each on its own channel.

The depths of many queues are then of almost the same moment.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueDepth:
    """The state of one queue at one moment."""

    ready: int = 0
    consumers: int = 0
    missing: bool = False
    last_error: str | None = None
    """The reason why the state is unknown. It contains names but not message contents."""


class Channels(Protocol):
    """A connection that opens channels."""

    async def channel(self, *, confirms: bool) -> Channel:
        """Open a channel."""
        ...


async def depth_by(channel: AbstractChannel, queue: str) -> QueueDepth:
    """Return the depth of a queue.

    If the broker answers that the queue is empty, but may not have counted its messages, the
    function asks again.

    Args:
        channel: A channel for this call only. If the queue does not exist, the broker
            closes the channel.
        queue: The queue's name.

    Raises:
        ChannelNotFoundEntity: The queue exists, but its node is down. The broker uses the same
            error code as for a missing queue.
        TimeoutError: The broker did not count the messages within `RPC_TIMEOUT_SECONDS`.
    """
    timer = asyncio.get_running_loop().time
    deadline = timer() + RPC_TIMEOUT_SECONDS
    while timer() < deadline:  # no call is interrupted, because aiormq would close the channel
        began = timer()
        depth = await _declared_depth(channel, queue)
        seconds = timer() - began
        if depth != QueueDepth() or seconds < COUNT_TIMEOUT_SECONDS:
            return depth
        if seconds - await _round_trip(channel) < COUNT_TIMEOUT_SECONDS - COUNT_MARGIN_SECONDS:
            return depth
    raise TimeoutError


async def _declared_depth(channel: AbstractChannel, queue: str) -> QueueDepth:
    try:
        declared = await channel.queue_declare(queue, passive=True, timeout=RPC_TIMEOUT_SECONDS)
    except ChannelNotFoundEntity as error:
        if "no queue" not in reason(error):
            raise
        return QueueDepth(missing=True)
    return QueueDepth(ready=declared.message_count or 0, consumers=declared.consumer_count or 0)


async def _round_trip(channel: AbstractChannel) -> float:
    """Return the seconds of a call that needs no queue."""
    timer = asyncio.get_running_loop().time
    began = timer()
    await channel.basic_qos(prefetch_count=0, timeout=RPC_TIMEOUT_SECONDS)
    return timer() - began


async def ready_in(connection: Channels, queue: str) -> int:
    """Return the number of ready messages in a queue.

    Raises:
        NotFound: The queue does not exist, or its node is down.
        Unavailable: The broker does not answer.
    """
    with map_errors(f"inspecting {queue}"):
        channel = await connection.channel(confirms=False)
        try:
            depth = await depth_by(channel, queue)
        except ChannelNotFoundEntity:
            depth = QueueDepth(missing=True)
        finally:
            await close_quietly(channel)
    if depth.missing:
        raise NotFound(
            f"queue {queue} does not exist, or its node is down. Check the name and the node."
        )
    return depth.ready


async def depths(url: str, names: Iterable[str]) -> dict[str, QueueDepth]:
    """Return the depth of each queue, by queue name.

    A passive declaration restarts the expiry timer of a queue with `x-expires`. If this function is
    called in a loop, a request queue without consumers never expires.

    Args:
        url: The broker's URL.
        names: The names of the queues.

    Returns:
        The depth of each queue. If the call fails for one queue, the `QueueDepth` of this queue
        has the error in `last_error`.

    Raises:
        BusError: One of the errors that `probe` raises.
    """
    queues = list(names)
    if not queues:
        return {}
    slots = asyncio.Semaphore(MAX_CONCURRENT_READS)

    async def read(connection: AbstractConnection, queue: str) -> QueueDepth:
        async with slots:
            return await _read_depth(connection, queue)

    async with connected(url, TIMEOUT_SECONDS) as connection:
        found = await asyncio.gather(*(read(connection, queue) for queue in queues))
    return dict(zip(queues, found, strict=True))


async def _read_depth(connection: AbstractConnection, queue: str) -> QueueDepth:
    """Return a queue's depth. If the call fails, the result has the error as `last_error`."""
    channel = await connection.channel(publisher_confirms=False)
    try:
        async with asyncio.timeout(TIMEOUT_SECONDS):
            return await depth_by(await channel.get_underlay_channel(), queue)
    except TimeoutError:
        return QueueDepth(last_error=f"no answer within {TIMEOUT_SECONDS:g} s")
    except AMQPError as error:
        return QueueDepth(last_error=reason(error))
    finally:
        if not channel.is_closed and not connection.is_closed:
            await channel.close()
