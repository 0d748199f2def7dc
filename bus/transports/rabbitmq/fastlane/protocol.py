"""The protocol of the fast lane, between the socket and aiormq's stream reader.

aiormq accepts a `transport_factory`, which creates a stream reader and a stream writer.
The protocol inspects each incoming frame first.
It decodes deliveries, returns and confirms of attached channels in place, and passes them on.
Every other frame goes to aiormq unchanged.
So aiormq still does connection, TLS, authentication, heartbeats, channels and declarations.

Outgoing frames are collected and written once per turn of the event loop.
While each turn brings more frames that need an answer, one write covers several turns.
"""

import asyncio
import logging
from typing import Any, Protocol

from aiormq.connection import TransportFactory
from aiormq.exceptions import AMQPConnectionError
from typing_extensions import override
from yarl import URL

from bus.errors import ConnectionLost
from bus.transports.rabbitmq.amqp.frames import HEARTBEAT
from bus.transports.rabbitmq.fastlane.frame_reader import ChannelHandler, FrameReader

__all__ = ["FastLaneProtocol", "FastLaneTransportFactory"]

log = logging.getLogger("bus.rabbitmq")

LARGE_WRITE_BYTES = 32 * 1024
"""Collected bytes above which frames are written at once, without waiting for others.

The next publish must see whether the socket is full.
"""
MAX_HOLD_SECONDS = 0.001
"""Seconds for which frames wait for others while more bytes arrive.

A write, and waking the broker, cost more than a message.
"""


class FrameSource(Protocol):
    """A source of frames that are better encoded together, such as acks."""

    def frames(self) -> list[bytes]:
        """Return the frames that are due now."""
        ...


class DiscardingHandler:
    """The handler of a channel between its release and its end.

    It keeps the rest of an incomplete delivery from aiormq.
    """

    def on_deliver(self, tag: int, properties: bytes, body: bytes, *, redelivered: bool) -> None:
        """Drop a delivery: the broker requeues it."""

    def on_confirm(self, tag: int, *, multiple: bool, ok: bool) -> None:
        """Drop a confirm: no publish waits for it."""

    def on_return(self, reason: str, exchange: str, routing_key: str, properties: bytes) -> None:
        """Drop a return: no publish waits for it."""

    def on_cancel(self) -> None:
        """Ignore a cancel: the channel is about to close."""

    def on_close(self, why: str) -> None:
        """Ignore the close, which was requested."""


DISCARD = DiscardingHandler()


class FastLaneProtocol(asyncio.StreamReaderProtocol):
    """The protocol of one connection, for both directions."""

    def __init__(self, reader: asyncio.StreamReader, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(reader, loop=loop)
        self._now = loop.time
        self._call_soon = loop.call_soon
        self._dirty: list[FrameSource] = []
        self._handlers: dict[int, ChannelHandler] = {}
        self._incoming = FrameReader(self._handlers, on_alarm=self._set_publishable)
        self._outgoing: list[bytes] = []
        self._size = 0
        """Bytes in `_outgoing`."""
        self._collecting_since = self._checked_at = loop.time()
        """Loop times at which the collecting began, and at which the input was last checked."""
        self._writable = asyncio.Event()
        self._writable.set()
        self._fed_at = loop.time()
        self.feed_interval = 1.0
        """Seconds after which aiormq receives a heartbeat from the fast lane.

        While only frequent frames arrive, aiormq would close the connection without it.
        """
        self.heard = loop.time()
        """Loop time at which bytes last arrived."""
        self.unblocked = asyncio.Event()
        self.unblocked.set()
        self.ended = False
        self.user: str | None = None
        """User of the connection, if its URL names one."""

    @property
    def frame_max(self) -> int:
        """Bytes of the largest frame in either direction."""
        return self._incoming.frame_max

    @frame_max.setter
    def frame_max(self, size: int) -> None:
        self._incoming.frame_max = size

    @property
    def last_error(self) -> str | None:
        """Reason why the fast lane itself closed the connection."""
        return self._incoming.last_error

    # --- Receiving ---

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Store the transport; the event loop calls this."""
        super().connection_made(transport)
        self.transport: Any = transport

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        """End all channels and wake all waiters; the event loop calls this."""
        self.ended = True
        handlers = [*self._handlers.values()]
        self._handlers.clear()
        self._outgoing.clear()
        self._writable.set()
        self.unblocked.set()
        for handler in handlers:
            handler.on_close("the connection was lost")
        super().connection_lost(exc)

    @override
    def data_received(self, data: bytes) -> None:
        """Parse bytes from the socket, and pass aiormq's frames on; the event loop calls this."""
        now = self.heard = self._now()
        readable = self.last_error is None
        attached_count = len(self._handlers)
        for_aiormq = self._incoming.feed(data)
        if len(self._handlers) < attached_count:
            # aiormq confirms a channel's close at once. A frame on the channel after that would
            # end the connection.
            self.flush()
        if readable and self.last_error is not None:
            self._abort(self.last_error)
        if for_aiormq:
            self._fed_at = now
            super().data_received(for_aiormq)
        elif now - self._fed_at > self.feed_interval:
            self._fed_at = now
            super().data_received(HEARTBEAT)

    def _abort(self, why: str) -> None:
        """Close the connection, because its stream is unreadable; the owner then connects again."""
        log.error("connection closed: its stream is unreadable", extra={"why": why})
        self.transport.abort()

    def _set_publishable(self, publishable: bool) -> None:  # noqa: FBT001 - a callback's argument
        if publishable:
            self.unblocked.set()
        else:
            self.unblocked.clear()

    # --- Channels ---

    def attach(self, channel: int, handler: ChannelHandler) -> None:
        """Pass the channel's frequent frames to the handler from now on.

        Raises:
            ConnectionLost: The connection has ended.
        """
        if self.ended:
            raise ConnectionLost("the connection was lost")
        previous = self._handlers.get(channel)
        self._handlers[channel] = handler
        if previous is not None and previous is not handler:
            previous.on_close("another channel uses its number now")

    def detach(self, channel: int, handler: ChannelHandler) -> None:
        """Discard the channel's frames until it is closed, which the caller does next.

        Collected frames are written first: a frame after the close would end the connection.
        If the number has another handler by now, nothing happens.
        """
        if self._handlers.get(channel) is handler:
            self.flush()
            self._handlers[channel] = DISCARD

    # --- Sending ---

    @override
    def pause_writing(self) -> None:
        """Hold publishes while the socket is full; the event loop calls this."""
        self._writable.clear()
        super().pause_writing()

    @override
    def resume_writing(self) -> None:
        """Release publishes when the socket accepts bytes again; the event loop calls this."""
        self._writable.set()
        super().resume_writing()

    @property
    def writable(self) -> bool:
        """True if publishes may be written now. Acks do not wait for it."""
        return self._writable.is_set() and self.unblocked.is_set()

    async def wait_writable(self) -> None:
        """Wait until neither a full socket nor an alarm blocks publishes, or the connection ends.

        Callers set the timeout.
        """
        while not self.writable and not self.ended:
            await self.unblocked.wait()
            await self._writable.wait()

    def send(self, frames: bytes) -> None:
        """Write frames, together with all others of this turn of the event loop.

        Raises:
            ConnectionLost: The connection has ended, and nothing was written.
        """
        if self.ended or self.transport.is_closing():
            raise ConnectionLost("the connection was lost")
        if not self._outgoing and not self._dirty:
            self._collect()
        self._outgoing.append(frames)
        self._size += len(frames)
        if self._size > LARGE_WRITE_BYTES:
            self.flush()

    def schedule(self, writer: "FrameSource") -> None:
        """Write the frames of `writer` after this turn's frames, so a reply precedes its ack."""
        if not self._outgoing and not self._dirty:
            self._collect()
        self._dirty.append(writer)

    def _collect(self) -> None:
        self._collecting_since = self._checked_at = self._now()
        self._call_soon(self._end_turn)

    def _end_turn(self) -> None:
        """Write the collected frames, or hold them for one more turn if bytes have arrived.

        The answers to those bytes are then part of the same write.
        """
        if not self._outgoing and not self._dirty:
            return
        now = self._now()
        if self.heard > self._checked_at and now - self._collecting_since < MAX_HOLD_SECONDS:
            self._checked_at = now
            self._call_soon(self._end_turn)
        else:
            self.flush()

    def flush(self) -> None:
        """Write all collected frames now."""
        outgoing, self._outgoing, self._size = self._outgoing, [], 0
        dirty, self._dirty = self._dirty, []
        if self.ended or self.transport.is_closing():
            return
        for writer in dirty:
            outgoing += writer.frames()
        if outgoing:
            self.transport.write(b"".join(outgoing))


class FastLaneTransportFactory(TransportFactory):
    """The factory that aiormq calls to connect; `lane` is set when the connection exists."""

    def __init__(self) -> None:
        self.lane: FastLaneProtocol | None = None

    @override
    async def create(self, url: URL, ssl_context_provider: Any = None, **kwargs: Any) -> Any:
        """Connect, and return a stream reader and writer with the fast lane below them."""
        loop = asyncio.get_running_loop()
        context = await ssl_context_provider.get_context() if url.scheme == "amqps" else None
        reader = asyncio.StreamReader(loop=loop)
        lane = FastLaneProtocol(reader, loop)
        lane.user = url.user
        try:
            transport, _ = await loop.create_connection(
                lambda: lane,
                url.host or "",
                url.port or 0,
                ssl=context,
                server_hostname=url.host if context else None,
                **kwargs,
            )
        except OSError as error:
            raise AMQPConnectionError(*error.args) from error
        self.lane = lane
        return reader, asyncio.StreamWriter(transport, lane, reader, loop)

    def abort(self) -> None:
        """Close the socket if it is open: aiormq leaves it open after an abandoned attempt."""
        if self.lane is not None:
            self.lane.transport.abort()
