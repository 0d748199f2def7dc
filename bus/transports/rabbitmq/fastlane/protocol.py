"""The fast lane: a protocol between the socket and aiormq's stream reader that takes the hot frames for itself.

aiormq accepts a `transport_factory`, whose product is a stream reader and writer. The protocol of ours looks at each
incoming frame first. Deliveries, returns and confirms of the channels that the lane has claimed are decoded in place
and handed over; every other frame goes on to aiormq as it came, so that aiormq keeps doing connection, TLS,
authentication, heartbeats, channels and declarations. What goes out is collected and written once per turn of the loop;
while each turn brings more that wants an answer, once for several.
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
"""Bytes. So many are written at once, without waiting for others: the next publish has to see whether the socket is full."""
MAX_HOLD_SECONDS = 0.001
"""Seconds for which frames wait for others while more keeps coming in: a write and the broker's waking cost more than a message."""


class FrameSource(Protocol):
    """Who has frames to write that are better made together: acks."""

    def frames(self) -> list[bytes]:
        """The frames now."""
        ...


class DiscardingHandler:
    """Has a channel between its release and its end, so that no half of a delivery gets to aiormq."""

    def on_deliver(self, tag: int, properties: bytes, body: bytes, *, redelivered: bool) -> None:
        """The broker delivers it again."""

    def on_confirm(self, tag: int, *, multiple: bool, ok: bool) -> None:
        """Nobody waits."""

    def on_return(self, reason: str, exchange: str, routing_key: str, properties: bytes) -> None:
        """Nobody waits."""

    def on_cancel(self) -> None:
        """It is closed anyway."""

    def on_close(self, why: str) -> None:
        """As intended."""


DISCARD = DiscardingHandler()


class FastLaneProtocol(asyncio.StreamReaderProtocol):
    """One connection's frames, both ways."""

    def __init__(self, reader: asyncio.StreamReader, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(reader, loop=loop)
        self._now = loop.time
        self._call_soon = loop.call_soon
        self._dirty: list[FrameSource] = []
        self._claimed: dict[int, ChannelHandler] = {}
        self._incoming = FrameReader(self._claimed, on_alarm=self._alarm)
        self._outgoing: list[bytes] = []
        self._size = 0
        """Bytes of it."""
        self._began = self._looked = loop.time()
        """When its collecting began, and when it was last looked at; on the loop's clock."""
        self._writable = asyncio.Event()
        self._writable.set()
        self._fed = loop.time()
        self.feed_interval = 1.0
        """Seconds; while only hot frames come, aiormq is shown a heartbeat this often, or it would close the connection."""
        self.heard = loop.time()
        """When anything last came, on the loop's clock."""
        self.unblocked = asyncio.Event()
        self.unblocked.set()
        self.ended = False
        self.user: str | None = None
        """Whose connection it is, where its address says so."""

    @property
    def frame_max(self) -> int:
        """Bytes of the largest frame, either way."""
        return self._incoming.frame_max

    @frame_max.setter
    def frame_max(self, size: int) -> None:
        self._incoming.frame_max = size

    @property
    def last_error(self) -> str | None:
        """Why the lane itself has closed the connection."""
        return self._incoming.last_error

    # --- in --------------------------------------------------------------------------------------------------------

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by the loop."""
        super().connection_made(transport)
        self.transport: Any = transport

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        """Called by the loop: nothing waits any longer."""
        self.ended = True
        claimants = [*self._claimed.values()]
        self._claimed.clear()
        self._outgoing.clear()
        self._writable.set()
        self.unblocked.set()
        for claimant in claimants:
            claimant.on_close("the connection was lost")
        super().connection_lost(exc)

    @override
    def data_received(self, data: bytes) -> None:
        """Called by the loop with whatever the socket had."""
        now = self.heard = self._now()
        readable = self.last_error is None
        claimed = len(self._claimed)
        passed = self._incoming.feed(data)
        if len(self._claimed) < claimed:
            self.flush()  # aiormq agrees to a channel's close at once, and a frame on the channel behind that ends the connection
        if readable and self.last_error is not None:
            self._give_up(self.last_error)
        if passed:
            self._fed = now
            super().data_received(passed)
        elif now - self._fed > self.feed_interval:
            self._fed = now
            super().data_received(HEARTBEAT)

    def _give_up(self, why: str) -> None:
        """The stream cannot be trusted from here on; the link connects anew."""
        log.error("closing the connection", extra={"why": why})
        self.transport.abort()

    def _alarm(self, takes_publishes: bool) -> None:  # noqa: FBT001 - the callback's one fact
        if takes_publishes:
            self.unblocked.set()
        else:
            self.unblocked.clear()

    # --- channels --------------------------------------------------------------------------------------------------

    def attach(self, channel: int, claimant: ChannelHandler) -> None:
        """From now on the channel's hot frames are the claimant's."""
        if self.ended:
            raise ConnectionLost("the connection was lost")
        before = self._claimed.get(channel)
        self._claimed[channel] = claimant
        if before is not None and before is not claimant:
            before.on_close("its number is another channel's")

    def detach(self, channel: int, claimant: ChannelHandler) -> None:
        """Want no more of the channel, which is then closed; does nothing where the number has been claimed anew since.

        What has been sent is written first: afterwards aiormq closes the channel, and a frame on it ends the connection.
        """
        if self._claimed.get(channel) is claimant:
            self.flush()
            self._claimed[channel] = DISCARD

    # --- out -------------------------------------------------------------------------------------------------------

    @override
    def pause_writing(self) -> None:
        """Called by the loop: the socket is full."""
        self._writable.clear()
        super().pause_writing()

    @override
    def resume_writing(self) -> None:
        """Called by the loop: there is room again."""
        self._writable.set()
        super().resume_writing()

    @property
    def writable(self) -> bool:
        """Whether the socket takes more now. Acks go out whether or not; publishes wait."""
        return self._writable.is_set() and self.unblocked.is_set()

    async def wait_writable(self) -> None:
        """Returns when publishes may go out: the socket has room, and the broker no alarm. Callers set the limit."""
        while not self.writable and not self.ended:
            await self.unblocked.wait()
            await self._writable.wait()

    def send(self, frames: bytes) -> None:
        """Write frames with all others of this turn of the loop; `ConnectionLost`, and nothing written, where it is gone."""
        if self.ended or self.transport.is_closing():
            raise ConnectionLost("the connection was lost")
        if not self._outgoing and not self._dirty:
            self._collect()
        self._outgoing.append(frames)
        self._size += len(frames)
        if self._size > LARGE_WRITE_BYTES:
            self.flush()

    def schedule(self, writer: "FrameSource") -> None:
        """Ask `writer` for its frames when this turn's are written; after those, so that a reply comes before its ack."""
        if not self._outgoing and not self._dirty:
            self._collect()
        self._dirty.append(writer)

    def _collect(self) -> None:
        self._began = self._looked = self._now()
        self._call_soon(self._end_turn)

    def _end_turn(self) -> None:
        """Write, unless something came in this turn of the loop: then what answers it goes out together with this."""
        if not self._outgoing and not self._dirty:
            return
        now = self._now()
        if self.heard > self._looked and now - self._began < MAX_HOLD_SECONDS:
            self._looked = now
            self._call_soon(self._end_turn)
        else:
            self.flush()

    def flush(self) -> None:
        """Write now what has been collected."""
        outgoing, self._outgoing, self._size = self._outgoing, [], 0
        dirty, self._dirty = self._dirty, []
        if self.ended or self.transport.is_closing():
            return
        for writer in dirty:
            outgoing += writer.frames()
        if outgoing:
            self.transport.write(b"".join(outgoing))


class FastLaneTransportFactory(TransportFactory):
    """What aiormq calls to connect; `lane` is the connection's, once it is made."""

    def __init__(self) -> None:
        self.lane: FastLaneProtocol | None = None

    @override
    async def create(self, url: URL, ssl_context_provider: Any = None, **kwargs: Any) -> Any:
        """A stream reader and writer with the lane between them and the socket."""
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
        """End the socket, if it is still there: aiormq leaves that of an attempt that is given up open."""
        if self.lane is not None:
            self.lane.transport.abort()
