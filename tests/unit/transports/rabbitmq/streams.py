"""AMQP streams, pamqp as their oracle, and fakes of a socket and of a channel's handler."""

import asyncio
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from hypothesis import strategies as st
from pamqp import base, body, commands, frame, header, heartbeat
from pamqp.commands import Basic, Channel, Connection
from pamqp.commands import Queue as QueueMethods
from typing_extensions import override

from bus.messaging.body_limit import UNLIMITED_BYTES
from bus.transports.rabbitmq.fastlane.protocol import FastLaneProtocol

Entry = tuple[Any, ...]
"""An event, its channel and its values."""


class StillLoop(asyncio.SelectorEventLoop):
    """An event loop with a clock that only tests advance."""

    now = 1000.0

    @override
    def time(self) -> float:
        return self.now


class Socket(asyncio.Transport):
    """A transport that records what is written to it."""

    def __init__(self) -> None:
        super().__init__()
        self.writes: list[bytes] = []
        self.aborted = self.closing = False

    @override
    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.writes.append(bytes(data))

    @override
    def is_closing(self) -> bool:
        return self.closing

    @override
    def abort(self) -> None:
        self.aborted = self.closing = True

    @override
    def pause_reading(self) -> None:
        """Ignore the request: a test reads everything at the end."""


@dataclass
class Recorder:
    """A channel handler that appends all its frames to a shared log."""

    channel: int
    log: list[Entry]
    max_body_bytes: int = UNLIMITED_BYTES

    def on_deliver(
        self, tag: int, properties: bytes, body: bytes, *, redelivered: bool, unread: int = 0
    ) -> None:
        if unread:
            self.log.append(("drop", self.channel, tag, redelivered, properties, unread))
            assert body == b""
        else:
            self.log.append(("deliver", self.channel, tag, redelivered, properties, body))

    def on_confirm(self, tag: int, *, multiple: bool, ok: bool) -> None:
        self.log.append(("confirm", self.channel, tag, multiple, ok))

    def on_return(self, reason: str, exchange: str, routing_key: str, properties: bytes) -> None:
        self.log.append(("return", self.channel, reason, exchange, routing_key, properties))

    def on_cancel(self) -> None:
        self.log.append(("cancel", self.channel))

    def on_close(self, why: str) -> None:
        self.log.append(("close", self.channel))


@dataclass
class Heard:
    """The result of reading a stream."""

    log: list[Entry]
    passed: bytes
    blocked: bool
    trouble: str | None = None


@dataclass
class Line:
    """A fast lane on a fake socket, with a recorder on each claimed channel."""

    loop: StillLoop
    claims: Iterable[int] = ()
    log: list[Entry] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.reader = asyncio.StreamReader(loop=self.loop)
        self.lane = FastLaneProtocol(self.reader, self.loop)
        self.socket = Socket()
        self.lane.connection_made(self.socket)
        self.recorders = {channel: Recorder(channel, self.log) for channel in self.claims}
        for channel, recorder in self.recorders.items():
            self.lane.attach(channel, recorder)

    @property
    def passed(self) -> bytes:
        """Bytes that aiormq would read."""
        # The public method would need a running event loop.
        return bytes(self.reader._buffer)  # type: ignore[attr-defined]

    def heard(self) -> Heard:
        return Heard(self.log, self.passed, not self.lane.unblocked.is_set(), self.lane.last_error)


def listen(loop: StillLoop, claims: Iterable[int], pieces: Iterable[bytes]) -> Heard:
    """Return the result of a stream that arrives in these pieces."""
    line = Line(loop, claims)
    for piece in pieces:
        line.lane.data_received(piece)
    return line.heard()


def cut(stream: bytes, at: Sequence[int]) -> Iterator[bytes]:
    """Yield the stream in pieces that end at these offsets."""
    start = 0
    for end in (*at, len(stream)):
        yield stream[start:end]
        start = end


# --- Oracle ---


def frames_of(stream: bytes) -> Iterator[tuple[bytes, int, Any]]:
    """Yield the bytes, the channel and the value of each frame, as pamqp decodes it."""
    while stream:
        size, channel, value = frame.unmarshal(stream)
        yield stream[:size], channel, value
        stream = stream[size:]


def oracle(claims: Iterable[int], stream: bytes) -> Heard:
    """Return the expected result, from pamqp's decoding of the whole stream."""
    heard = Heard([], b"", blocked=False)
    claimed = set(claims)
    contents: dict[int, tuple[Any, list[Any]]] = {}
    for raw, channel, value in frames_of(stream):
        if channel in claimed and isinstance(value, Basic.Deliver | Basic.Return):
            contents[channel] = (value, [])
        elif channel in contents and isinstance(value, header.ContentHeader | body.ContentBody):
            method, content = contents[channel]
            content.append(value)
            if sum(len(part) for part in content[1:]) == content[0].body_size:
                del contents[channel]
                heard.log.append(_entry(channel, method, content))
        elif channel in claimed and isinstance(value, Basic.Ack | Basic.Nack):
            heard.log.append(
                (
                    "confirm",
                    channel,
                    value.delivery_tag,
                    value.multiple,
                    isinstance(value, Basic.Ack),
                )
            )
        else:
            heard.passed += raw
            _note(heard, claimed, channel, value)
    return heard


def _entry(channel: int, method: Any, content: list[Any]) -> Entry:
    properties = content[0].properties.marshal()
    if isinstance(method, Basic.Deliver):
        return (
            "deliver",
            channel,
            method.delivery_tag,
            method.redelivered,
            properties,
            b"".join(part.value for part in content[1:]),
        )
    return "return", channel, method.reply_text, method.exchange, method.routing_key, properties


def _note(heard: Heard, claimed: set[int], channel: int, value: Any) -> None:
    if isinstance(value, Connection.Blocked | Connection.Unblocked):
        heard.blocked = isinstance(value, Connection.Blocked)
    elif channel in claimed and isinstance(value, Basic.Cancel):
        heard.log.append(("cancel", channel))
    elif channel in claimed and isinstance(value, Channel.Close | Channel.CloseOk):
        claimed.discard(channel)
        heard.log.append(("close", channel))


# --- Streams ---


def method(channel: int, value: base.Frame) -> bytes:
    return frame.marshal(value, channel)


def content(
    channel: int, value: base.Frame, sizes: Sequence[int], properties: Basic.Properties
) -> list[bytes]:
    """Return the frames of a method with content, with a body frame for each size."""
    head = header.ContentHeader(body_size=sum(sizes), properties=properties)
    bodies: list[Any] = [
        body.ContentBody(bytes((number + n) % 256 for n in range(size)))
        for number, size in enumerate(sizes, start=0xC0)
    ]
    return [frame.marshal(part, channel) for part in (value, head, *bodies)]


PROPERTIES = (
    Basic.Properties(),
    Basic.Properties(
        message_id="m-1",
        headers={"correlation-id": "\xce" * 3, "attempt": 0xCE},
        content_type="application/json",
    ),
    Basic.Properties(
        message_id="m-2",
        message_type="ledger.add.v1",
        app_id="office",
        reply_to="q",
        delivery_mode=2,
    ),
)
BODIES: tuple[tuple[int, ...], ...] = ((), (1,), (3,), (40,), (8, 1), (1, 1, 1), (30, 7, 30))
DELIVER, RETURN, GET, ACK, CANCEL, RARE, CLOSE, CLOSED = range(8)
KINDS = (DELIVER, DELIVER, DELIVER, RETURN, GET, ACK, ACK, CANCEL, RARE, CLOSE, CLOSED)
RARELY: tuple[base.Frame, ...] = (
    QueueMethods.DeclareOk(queue="q", message_count=1, consumer_count=0),
    Basic.QosOk(),
    Basic.ConsumeOk(consumer_tag="ctag"),
    Channel.OpenOk(),
    Basic.GetEmpty(),
    Basic.CancelOk(consumer_tag="ctag"),
    commands.Confirm.SelectOk(),
)
BETWEEN = (
    heartbeat.Heartbeat().marshal(),
    method(0, Connection.Blocked(reason="low on memory")),
    method(0, Connection.Unblocked()),
    method(0, Connection.UpdateSecretOk()),
)

Act = tuple[int, int, int, int]
"""A channel, a kind of frame, and two numbers that select its values."""


def happening(channel: int, kind: int, one: int, two: int) -> list[bytes]:
    """Return the frames of one act of the broker."""
    properties, sizes = PROPERTIES[two % len(PROPERTIES)], BODIES[one % len(BODIES)]
    if kind == DELIVER:
        deliver = Basic.Deliver(
            consumer_tag="ctag"[: one % 5],
            delivery_tag=(two << 30) + one,
            redelivered=two % 2 == 1,
            exchange="x" * two,
            routing_key="k",
        )
        return content(channel, deliver, sizes, properties)
    if kind == RETURN:
        return content(
            channel, Basic.Return(312, "NO_ROUTE"[:one], "x" * two, "k" * one), sizes, properties
        )
    if kind == GET:
        return content(
            channel,
            Basic.GetOk(delivery_tag=one, exchange="x", routing_key="k", message_count=two),
            sizes,
            properties,
        )
    return [method(channel, _without_content(kind, one, two))]


def _without_content(kind: int, one: int, two: int) -> base.Frame:
    if kind == ACK:
        tag, multiple = (two << 40) + one, one % 2 == 1
        return Basic.Nack(tag, multiple) if two % 3 == 0 else Basic.Ack(tag, multiple)
    if kind == CANCEL:
        return Basic.Cancel(consumer_tag="ctag", nowait=True)
    if kind == CLOSE:
        return Channel.Close(404, "NOT_FOUND - no queue", 60, 20)
    return Channel.CloseOk() if kind == CLOSED else RARELY[one % len(RARELY)]


def interleaved(acts: Sequence[Act], order: Sequence[int]) -> bytes:
    """Mix the channels' frames, and keep the order within each channel.

    Args:
        acts: Acts of the broker, on any channels.
        order: Numbers that select the next channel; large ones also insert a frame of channel 0.
    """
    waiting: dict[int, list[bytes]] = {}
    for act in acts:
        waiting.setdefault(act[0], []).extend(happening(*act))
    stream = []
    turn = 0
    while waiting:
        number = order[turn % len(order)] if order else 0
        turn += 1
        if number >= 12:
            stream.append(BETWEEN[number % len(BETWEEN)])
        channel = sorted(waiting)[number % len(waiting)]
        stream.append(waiting[channel].pop(0))
        if not waiting[channel]:
            del waiting[channel]
    return b"".join(stream)


acts = st.lists(
    st.tuples(st.integers(1, 4), st.sampled_from(KINDS), st.integers(0, 20), st.integers(0, 20)),
    min_size=1,
    max_size=7,
)
streams = st.builds(interleaved, acts, st.lists(st.integers(0, 15), max_size=24))
