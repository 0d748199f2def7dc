"""A stream reader that removes message properties that pamqp cannot decode.

pamqp raises an error for a timestamp after the year 9999, a text that is not UTF-8, and a header of
an unknown type. After such an error aiormq ends the connection. The broker delivers the message
again on the next connection, and the error repeats without end. If the properties are removed, the
message arrives with a `fault`, and is dead-lettered like other malformed messages.
"""

import asyncio
from typing import Any, cast

from aiormq.abc import ConsumerCallback, DeliveredMessage
from aiormq.channel import Channel
from aiormq.connection import TCPTransportFactory, TLSTransportFactory, TransportFactory
from pamqp.constants import FRAME_HEADER
from pamqp.frame import unmarshal
from typing_extensions import override
from yarl import URL

from bus.transports.rabbitmq.amqp.raw_properties import has_too_many_headers
from bus.transports.rabbitmq.forked_sockets import close_in_children

__all__ = ["LenientTransportFactory", "accept_unknown_delivery_mode", "sanitize_header_frame"]

FRAME_HEAD_BYTES = 7
"""Bytes of a frame's type, channel and size."""
FLAGS_OFFSET_BYTES = 12
"""Bytes of a content header before its property flags: class, weight and body size.

The flags specify which properties follow.
"""
KNOWN_MODES = {None, 1, 2}
"""Delivery modes that AMQP 0-9-1 defines. None means that the property is not set."""


class LenientTransportFactory(TransportFactory):
    """A factory for aiormq's normal transports. It adds a `LenientReader` to each transport."""

    def __init__(self) -> None:
        self._writer: asyncio.StreamWriter | None = None

    @override
    async def create(
        self, url: URL, **kwargs: Any
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Connect, and return a lenient reader and the writer."""
        factory = TLSTransportFactory() if url.scheme == "amqps" else TCPTransportFactory()
        reader, writer = await factory.create(url, **kwargs)
        self._writer = writer
        close_in_children(writer.transport)
        return cast("asyncio.StreamReader", LenientReader(reader)), writer

    def abort(self) -> None:
        """Close the socket if it is open, because aiormq leaves it open after a failed connect."""
        if self._writer is not None:
            self._writer.transport.abort()


class LenientReader:
    """A stream reader with the two methods that aiormq calls.

    aiormq reads each frame in three parts: the first byte, the other six bytes of the head, and the
    rest.
    """

    def __init__(self, reader: asyncio.StreamReader) -> None:
        self._reader = reader
        self._head = b""

    def at_eof(self) -> bool:
        """Return True if the stream has ended and all bytes were read."""
        return self._reader.at_eof()

    async def readexactly(self, count: int) -> bytes:
        """Return the next `count` bytes. Replace a content header that pamqp cannot decode."""
        data = await self._reader.readexactly(count)
        if len(self._head) < FRAME_HEAD_BYTES:
            self._head += data
            return data
        head, self._head = self._head, b""
        return sanitize_header_frame(head, data) if head[0] == FRAME_HEADER else data


def sanitize_header_frame(head: bytes, rest: bytes) -> bytes:
    """Return the rest of a content header frame. Remove all properties if pamqp cannot decode them.

    Args:
        head: The first seven bytes of the frame.
        rest: The other bytes of the frame. The result has the same length.
    """
    return (
        rest
        if _is_readable(head, rest)
        else rest[:FLAGS_OFFSET_BYTES] + bytes(len(rest) - FLAGS_OFFSET_BYTES - 1) + rest[-1:]
    )


def _is_readable(head: bytes, rest: bytes) -> bool:
    if has_too_many_headers(rest[FLAGS_OFFSET_BYTES:-1]):
        return False
    try:
        unmarshal(head + rest)
    except Exception:  # noqa: BLE001 - any exception would end the connection
        return False
    return True


def accept_unknown_delivery_mode(channel: Channel) -> Channel:
    """Make a channel accept messages with an unknown delivery mode, and return the channel.

    Without this change, aio-pika drops these messages, and they are never settled. RabbitMQ 3
    refuses a publish with an unknown delivery mode, but RabbitMQ 4 accepts it.
    """
    consume = channel.basic_consume

    async def basic_consume(queue: str, consumer_callback: ConsumerCallback, **options: Any) -> Any:
        async def take(message: DeliveredMessage) -> Any:
            properties = message.header.properties
            if properties.delivery_mode not in KNOWN_MODES:
                properties.delivery_mode = None
            return await consumer_callback(message)

        return await consume(queue, take, **options)

    # aio-pika has no hook for this change, so the method of this one channel is replaced.
    channel.basic_consume = basic_consume  # type: ignore[method-assign]
    return channel
