"""A message whose properties nobody can read arrives without them, and costs no connection.

pamqp raises for a timestamp past the year 9999, a text that is no UTF-8 and a header of an unknown type; aiormq then ends the
connection, the broker delivers the message again on the next, and so on. Without its properties the message has a `fault`, and
is dead-lettered as any other that is none.
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

__all__ = ["LenientTransportFactory", "accept_unknown_delivery_mode", "sanitize_header_frame"]

HEAD = 7
"""Bytes: a frame's type, channel and size."""
BEFORE_FLAGS = 12
"""Bytes of a content header: class, weight and the body's size. Behind them the flags that say which properties follow."""
KNOWN_MODES = {None, 1, 2}
"""Delivery modes of AMQP 0-9-1."""


class LenientTransportFactory(TransportFactory):
    """Opens what aiormq would open by itself, and reads tolerantly."""

    def __init__(self) -> None:
        self._writer: asyncio.StreamWriter | None = None

    @override
    async def create(
        self, url: URL, **kwargs: Any
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Connect."""
        factory = TLSTransportFactory() if url.scheme == "amqps" else TCPTransportFactory()
        reader, writer = await factory.create(url, **kwargs)
        self._writer = writer
        return cast("asyncio.StreamReader", LenientReader(reader)), writer

    def abort(self) -> None:
        """End the socket, if it is still there: aiormq leaves that of an attempt that is given up open."""
        if self._writer is not None:
            self._writer.transport.abort()


class LenientReader:
    """The two methods of a reader that aiormq calls: for a frame's first byte, its head's other six, and its rest."""

    def __init__(self, reader: asyncio.StreamReader) -> None:
        self._reader = reader
        self._head = b""

    def at_eof(self) -> bool:
        """Whether nothing comes any more."""
        return self._reader.at_eof()

    async def readexactly(self, count: int) -> bytes:
        """The next `count` bytes, or of a content header that cannot be read as many that can."""
        data = await self._reader.readexactly(count)
        if len(self._head) < HEAD:
            self._head += data
            return data
        head, self._head = self._head, b""
        return sanitize_header_frame(head, data) if head[0] == FRAME_HEADER else data


def sanitize_header_frame(head: bytes, rest: bytes) -> bytes:
    """`rest` of a content header frame, without properties where they cannot be read."""
    return (
        rest
        if _is_legible(head, rest)
        else rest[:BEFORE_FLAGS] + bytes(len(rest) - BEFORE_FLAGS - 1) + rest[-1:]
    )


def _is_legible(head: bytes, rest: bytes) -> bool:
    if has_too_many_headers(rest[BEFORE_FLAGS:-1]):
        return False
    try:
        unmarshal(head + rest)
    except Exception:  # noqa: BLE001 - whatever it is, it would end the connection
        return False
    return True


def accept_unknown_delivery_mode(channel: Channel) -> Channel:
    """The channel, on which aio-pika takes what comes with a delivery mode that it does not know: it would drop it, unsettled for ever.

    RabbitMQ 3 refuses to publish that, and 4 does not.
    """
    consume = channel.basic_consume

    async def basic_consume(queue: str, consumer_callback: ConsumerCallback, **options: Any) -> Any:
        async def take(message: DeliveredMessage) -> Any:
            properties = message.header.properties
            if properties.delivery_mode not in KNOWN_MODES:
                properties.delivery_mode = None
            return await consumer_callback(message)

        return await consume(queue, take, **options)

    channel.basic_consume = basic_consume  # type: ignore[method-assign]  # one channel's: aio-pika offers no other place
    return channel
