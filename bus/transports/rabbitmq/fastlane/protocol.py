"""The asyncio protocol of the fast lane, between the socket and aiormq's stream reader.

aiormq accepts a `transport_factory`, which creates its stream reader and stream writer.
So this protocol receives each incoming frame before aiormq.
It decodes the deliveries, confirms and returned messages of each attached channel, and passes them
to the channel's handler.
It passes all other frames to aiormq unchanged.
So aiormq still handles the connection, TLS, authentication, heartbeats, channels and declarations.

Outgoing frames are collected, and are written once in each turn of the event loop.
If bytes arrive in each turn, outgoing frames are collected for up to `MAX_HOLD_SECONDS`.
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
from bus.transports.rabbitmq.forked_sockets import close_in_children

__all__ = ["FastLaneProtocol", "FastLaneTransportFactory"]

log = logging.getLogger("bus.rabbitmq")

LARGE_WRITE_BYTES = 32 * 1024
"""Maximum bytes of collected frames.

If more bytes are collected, all collected frames are written immediately.
Only a write shows whether the socket is full, and a full socket must stop the next publish.
"""
MAX_HOLD_SECONDS = 0.001
"""Maximum seconds to collect outgoing frames while incoming bytes arrive.

Frames are collected because a write takes more time than the processing of a message.
"""


class FrameSource(Protocol):
    """A source of frames, for example acks. It encodes its frames just before a write."""

    def frames(self) -> list[bytes]:
        """Return the frames to write now."""
        ...


class DiscardingHandler:
    """A handler that drops the frames of a released channel until the channel is closed.

    Without this handler, aiormq would receive the rest of an incomplete delivery.
    """

    max_body_bytes = 0

    def on_deliver(
        self, tag: int, properties: bytes, body: bytes, *, redelivered: bool, unread: int = 0
    ) -> None:
        """Drop a delivery, because the broker requeues it."""

    def on_confirm(self, tag: int, *, multiple: bool, ok: bool) -> None:
        """Drop a confirm, because no publish waits for it."""

    def on_return(self, reason: str, exchange: str, routing_key: str, properties: bytes) -> None:
        """Drop a returned message, because no publish waits for it."""

    def on_cancel(self) -> None:
        """Ignore a cancel, because the channel is about to close."""

    def on_close(self, why: str) -> None:
        """Ignore the close, because the bus requested it."""


DISCARD = DiscardingHandler()


class FastLaneProtocol(asyncio.StreamReaderProtocol):
    """The asyncio protocol of one connection, for incoming and outgoing frames."""

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
        """Loop time of the first collected frame, and loop time of the last check for new bytes."""
        self._writable = asyncio.Event()
        self._writable.set()
        self._fed_at = loop.time()
        self.feed_interval = 1.0
        """If aiormq gets no frame for this number of seconds, the lane sends aiormq a heartbeat.

        Without this heartbeat, aiormq would close a connection on which only frequent frames
        arrive.
        """
        self.heard = loop.time()
        """Loop time at which the last bytes arrived."""
        self.unblocked = asyncio.Event()
        self.unblocked.set()
        self.ended = False
        self.user: str | None = None
        """User name in the URL of the connection, or None."""

    @property
    def frame_max(self) -> int:
        """Maximum bytes of an incoming or outgoing frame."""
        return self._incoming.frame_max

    @frame_max.setter
    def frame_max(self, size: int) -> None:
        self._incoming.frame_max = size

    @property
    def last_error(self) -> str | None:
        """Error that made the fast lane close the connection, or None."""
        return self._incoming.last_error

    # --- Receiving ---

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Store the transport. The event loop calls this method."""
        super().connection_made(transport)
        self.transport: Any = transport

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        """End all channels and wake all waiting publishes. The event loop calls this method."""
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
        """Parse bytes, and pass frames to handlers or to aiormq. The event loop calls this."""
        now = self.heard = self._now()
        readable = self.last_error is None
        attached_count = len(self._handlers)
        for_aiormq = self._incoming.feed(data)
        if len(self._handlers) < attached_count:
            # The broker has closed a channel, and aiormq will confirm the close next. A frame
            # that is written on the channel after the confirmation would end the connection.
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
        """Close the connection, because its stream is unreadable.

        After the close, `SupervisedConnection` reconnects.
        """
        peer = self.transport.get_extra_info("peername")
        log.error(
            "connection to %s closed, because its stream is unreadable: %s",
            peer,
            why,
            extra={"peer": str(peer), "why": why},
        )
        self.transport.abort()

    def _set_publishable(self, publishable: bool) -> None:  # noqa: FBT001 - a callback's argument
        if publishable:
            self.unblocked.set()
        else:
            self.unblocked.clear()

    # --- Channels ---

    def attach(self, channel: int, handler: ChannelHandler) -> None:
        """Start to pass the channel's frequent frames to the handler.

        Raises:
            ConnectionLost: The connection has ended.
        """
        if self.ended:
            raise ConnectionLost("the connection was lost")
        previous = self._handlers.get(channel)
        self._handlers[channel] = handler
        if previous is not None and previous is not handler:
            previous.on_close("another channel uses the same channel number now")

    def detach(self, channel: int, handler: ChannelHandler) -> None:
        """Discard the channel's frames until the caller has closed the channel.

        Collected frames are written first, because a frame that is written after the close would
        end the connection. If another handler is attached to the channel number, nothing happens.
        """
        if self._handlers.get(channel) is handler:
            self.flush()
            self._handlers[channel] = DISCARD

    # --- Sending ---

    @override
    def pause_writing(self) -> None:
        """Stop publishes, because the socket is full. The event loop calls this method."""
        self._writable.clear()
        super().pause_writing()

    @override
    def resume_writing(self) -> None:
        """Continue publishes, because the socket accepts bytes. The event loop calls this."""
        self._writable.set()
        super().resume_writing()

    @property
    def writable(self) -> bool:
        """True if publishes can be written now. Acks do not have to wait."""
        return self._writable.is_set() and self.unblocked.is_set()

    async def wait_writable(self) -> None:
        """Wait until publishes can be written, or until the connection ends.

        The method has no timeout.
        """
        while not self.writable and not self.ended:
            await self.unblocked.wait()
            await self._writable.wait()

    def send(self, frames: bytes) -> None:
        """Write frames, together with the other frames of this turn of the event loop.

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
        """Write the frames of `writer` after all other collected frames.

        So the reply to a request is written before the ack of the request.
        """
        if not self._outgoing and not self._dirty:
            self._collect()
        self._dirty.append(writer)

    def _collect(self) -> None:
        self._collecting_since = self._checked_at = self._now()
        self._call_soon(self._end_turn)

    def _end_turn(self) -> None:
        """Write the collected frames. If bytes have arrived, wait for one more turn first.

        So the answers to those bytes are part of the same write.
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
    """The factory that aiormq calls to connect. `lane` is set when the socket is connected."""

    def __init__(self) -> None:
        self.lane: FastLaneProtocol | None = None

    @override
    async def create(self, url: URL, ssl_context_provider: Any = None, **kwargs: Any) -> Any:
        """Connect, and return a stream reader and a stream writer that use the fast lane."""
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
        close_in_children(transport)
        return reader, asyncio.StreamWriter(transport, lane, reader, loop)

    def abort(self) -> None:
        """Close the socket if it is open, because aiormq leaves it open after a failed connect."""
        if self.lane is not None:
            self.lane.transport.abort()
