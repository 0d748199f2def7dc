"""A parser that splits incoming bytes into AMQP frames.

It passes the frequent frames of a channel to the handler of that channel. It passes all other
frames to aiormq unchanged.
"""

from collections.abc import Callable
from struct import Struct
from typing import Protocol

from bus.transports.rabbitmq.amqp.frames import (
    ACK,
    BODY,
    CANCEL,
    CLOSE_CHANNEL,
    CLOSED_CHANNEL,
    DELIVER,
    FRAME_END,
    HEADER,
    METHOD,
    NACK,
    OVERHEAD,
    RETURN,
)

__all__ = ["CLOSED_BY_BROKER", "ChannelHandler", "FrameReader"]

CLOSED_BY_BROKER = "the broker closed the channel: "
"""Prefix of the close reason if the broker closed the channel. The broker's text follows."""

BLOCKED, UNBLOCKED = 0x000A003C, 0x000A003D
PROTOCOL_HEADER = (ord("A"), int.from_bytes(b"MQ"))
"""Frame type and channel that result if a protocol header ("AMQP…") is parsed as a frame.

A broker that does not support AMQP 0-9-1 sends a protocol header.
"""

head_at = Struct(">BHI").unpack_from
u32_at = Struct(">I").unpack_from
u64_at = Struct(">Q").unpack_from
confirm_at = Struct(">QB").unpack_from
delivered_at = Struct(">QB").unpack_from
content_at = Struct(">BHIHHQ").unpack_from
METHOD_ID, CONFIRM_LENGTH = 4, 13
"""Length of a method id, and length of the payload of a `basic.ack` or `basic.nack`, in bytes."""
CONTENT_HEAD = 19
"""Bytes of a header frame before its properties: frame head, class, weight and body size."""
MIN_HEADER_BYTES = 14
"""Bytes of the payload of a header frame without properties."""
MAX_ADDED_HEADER_BYTES = 64 * 1024
"""Maximum bytes by which a header frame may exceed `frame_max`.

RabbitMQ adds its own headers (`x-delivery-count`, `x-death`) even to a header frame that is full.
"""


class MalformedFrame(Exception):
    """An error for bytes that are not AMQP 0-9-1 frames, or for frames in a wrong order."""


class ChannelHandler(Protocol):
    """The receiver of the frames of one channel that the fast lane handles.

    Its methods must not block or raise errors.
    """

    max_body_bytes: int
    """Maximum bytes of a delivery's body. The parser drops a larger body while it arrives."""

    def on_deliver(
        self, tag: int, properties: bytes, body: bytes, *, redelivered: bool, unread: int = 0
    ) -> None:
        """Handle a delivery.

        Args:
            tag: Delivery tag.
            properties: Encoded property flags and values.
            body: Body, or nothing if it is larger than `max_body_bytes`.
            redelivered: True if the broker delivered the message before.
            unread: Bytes of the body that was dropped, or 0.
        """

    def on_confirm(self, tag: int, *, multiple: bool, ok: bool) -> None:
        """Handle the broker's ack or nack of a publish."""

    def on_return(self, reason: str, exchange: str, routing_key: str, properties: bytes) -> None:
        """Handle a mandatory message that the broker returned, because no queue received it.

        In confirm mode the ack of the message arrives later. The ack can cover several messages.
        """

    def on_cancel(self) -> None:
        """Handle a cancellation of the consumer by the broker. aiormq also receives the frame."""

    def on_close(self, why: str) -> None:
        """Handle the end of the channel or of its connection.

        After this call, no frames arrive on the channel. The handler must not write frames on it.
        """


class PartialContent:
    """A delivery or a returned message that has not arrived completely."""

    __slots__ = ("body", "delivered", "missing", "properties", "returned", "unread")

    def __init__(
        self,
        *,
        delivered: tuple[int, bool] | None = None,
        returned: tuple[str, str, str] | None = None,
    ) -> None:
        self.delivered = delivered
        self.returned = returned
        self.properties: bytes | None = None
        self.missing = 0
        self.unread = 0
        """Size of a body that is dropped while it arrives, or 0 if the body is kept."""
        self.body: list[bytes] = []


class FrameReader:
    """A parser for the incoming bytes of one connection. The pieces can have any size."""

    def __init__(
        self, handlers: dict[int, ChannelHandler], *, on_alarm: Callable[[bool], None]
    ) -> None:
        """Initialize the parser.

        Args:
            handlers: Handlers by channel number.
            on_alarm: Called with False when an alarm starts, and with True when it ends.
        """
        self.frame_max = 131072
        self.last_error: str | None = None
        """Error after which the parser drops all bytes, or None."""
        self._handlers = handlers
        self._on_alarm = on_alarm
        self._partial: dict[int, PartialContent] = {}
        self._incomplete: list[bytes] = []
        """Received pieces of the frame that is not complete yet."""
        self._missing = 0
        """Number of missing bytes of the incomplete frame, or 0 if this number is not known."""

    def feed(self, data: bytes) -> bytes:
        """Parse new bytes, and return the frames that aiormq must handle."""
        if self._missing > len(data):
            self._incomplete.append(data)
            self._missing -= len(data)
            return b""
        if self.last_error is not None:
            return b""
        if self._incomplete:
            self._incomplete.append(data)
            data = b"".join(self._incomplete)
            self._incomplete.clear()
        self._missing = 0
        offset, for_aiormq = self._parse(data)
        if offset < len(data):
            self._incomplete.append(data[offset:])
        return for_aiormq

    def forget(self, channel: int) -> None:
        """Drop the incomplete content of a channel that has ended."""
        self._partial.pop(channel, None)

    def _parse(  # noqa: C901 - one more call for each frame would make it 10 % slower
        self, data: bytes
    ) -> tuple[int, bytes]:
        """Handle the complete frames of `data`.

        Returns:
            The offset of the first incomplete frame, and the frames for aiormq.
        """
        offset, unhandled_from, size = 0, 0, len(data)
        for_aiormq = b""
        handlers = self._handlers
        try:
            while size - offset >= OVERHEAD:
                kind, channel, length = head_at(data, offset)
                end = offset + OVERHEAD + length
                if end > size or length > self.frame_max:
                    if (kind, channel) == PROTOCOL_HEADER:
                        # aiormq also receives the protocol header, and raises its own error.
                        offset = size
                        raise MalformedFrame(  # noqa: TRY301 - handled below
                            "the broker sent a protocol header instead of a frame. Connect to a "
                            "broker with AMQP 0-9-1."
                        )
                    if length > self.frame_max and (
                        kind != HEADER or length > self.frame_max + MAX_ADDED_HEADER_BYTES
                    ):
                        raise MalformedFrame(  # noqa: TRY301 - handled below
                            f"a frame has {length} bytes, the limit is {self.frame_max} bytes"
                        )
                    if end > size:
                        self._missing = end - size
                        break
                if data[end - 1] != FRAME_END:
                    raise MalformedFrame(  # noqa: TRY301 - handled below
                        "a frame has no end octet"
                    )
                handler = handlers.get(channel)
                if handler is not None:
                    next_offset = self._handle_frame(
                        handler, kind, channel, data, offset + 7, end - 1
                    )
                    if next_offset:
                        if unhandled_from < offset:
                            for_aiormq += data[unhandled_from:offset]
                        unhandled_from = offset = next_offset
                        continue
                elif channel == 0 and kind == METHOD and length >= METHOD_ID:
                    self._check_alarm(u32_at(data, offset + 7)[0])
                offset = end
        except MalformedFrame as error:
            self.last_error = f"the broker's stream is malformed: {error}"
            return size, for_aiormq + data[unhandled_from:offset]
        except Exception as error:  # noqa: BLE001 - `last_error` must keep the reason
            self.last_error = f"the broker's stream could not be read: {type(error).__name__}"
            return size, for_aiormq + data[unhandled_from:offset]
        return offset, for_aiormq + data[unhandled_from:offset]

    def _handle_frame(
        self, handler: ChannelHandler, kind: int, channel: int, data: bytes, offset: int, end: int
    ) -> int:
        """Handle a frame with the payload `data[offset:end]`.

        Returns:
            The offset after the frames that the handler consumed, or 0 if aiormq must receive the
            frame.
        """
        if kind == METHOD:
            return self._handle_method(handler, channel, data, offset, end)
        partial = self._partial.get(channel)
        if partial is None:
            return 0  # aiormq received the method frame, and must also receive this content.
        if kind == HEADER and partial.properties is None and end - offset >= MIN_HEADER_BYTES:
            size = partial.missing = u64_at(data, offset + 4)[0]
            partial.properties = data[offset + 12 : end]
            if partial.delivered is None or size > handler.max_body_bytes:
                partial.unread = size
        elif kind == BODY and partial.properties is not None and end - offset <= partial.missing:
            if not partial.unread:
                partial.body.append(data[offset:end])
            partial.missing -= end - offset
        else:
            raise MalformedFrame(f"a frame of type {kind} is misplaced in a message's content")
        if not partial.missing:
            del self._partial[channel]
            self._complete(handler, partial)
        return end + 1

    def _handle_method(
        self, handler: ChannelHandler, channel: int, data: bytes, offset: int, end: int
    ) -> int:
        if end - offset < METHOD_ID:
            raise MalformedFrame("a method frame has no method id")
        method = u32_at(data, offset)[0]
        if method == DELIVER:
            return self._handle_deliver(handler, channel, data, offset, end)
        if method in (ACK, NACK):
            if end - offset != CONFIRM_LENGTH:
                raise MalformedFrame(f"a confirm has {end - offset} bytes, not {CONFIRM_LENGTH}")
            tag, flags = confirm_at(data, offset + 4)
            handler.on_confirm(tag, multiple=flags & 1 == 1, ok=method == ACK)
            return end + 1
        if method == RETURN:
            self._begin_content(
                channel, PartialContent(returned=_parse_return(data[offset + 6 : end]))
            )
            return end + 1
        if method == CANCEL:
            handler.on_cancel()
        elif method in (CLOSE_CHANNEL, CLOSED_CHANNEL):
            self._end_channel(
                channel,
                handler,
                _read_short(data[offset + 6 : end], 0)[0] if method == CLOSE_CHANNEL else "",
            )
        return 0

    def _handle_deliver(
        self, handler: ChannelHandler, channel: int, data: bytes, offset: int, end: int
    ) -> int:
        """Handle a delivery.

        The handler receives the delivery immediately if all these conditions are true:

        - `data` has all frames of the delivery.
        - The delivery has exactly one body frame.
        - The payloads of its header frame and body frame have at most `frame_max` bytes in total.
        - The handler keeps a body of this size.

        If a condition is false, a `PartialContent` collects the frames of the delivery.
        """
        tag_at = offset + 5 + data[offset + 4]
        if tag_at + 9 > end:
            raise MalformedFrame("a delivery has no delivery tag")
        tag, redelivered = delivered_at(data, tag_at)
        start = end + 1
        if start + CONTENT_HEAD < len(data) and channel not in self._partial:
            kind, number, length, _, _, size = content_at(data, start)
            body = start + OVERHEAD + length
            after: int = body + OVERHEAD + size
            if (
                kind == HEADER
                and number == channel
                and length >= MIN_HEADER_BYTES
                and length + size <= self.frame_max
                and size <= handler.max_body_bytes
                and after <= len(data)
                and data[body - 1] == FRAME_END
                and data[after - 1] == FRAME_END
                and head_at(data, body) == (BODY, channel, size)
            ):
                content = data[start + CONTENT_HEAD : body - 1], data[body + 7 : after - 1]
                handler.on_deliver(tag, *content, redelivered=redelivered == 1)
                return after
        self._begin_content(channel, PartialContent(delivered=(tag, redelivered == 1)))
        return start

    def _begin_content(self, channel: int, partial: PartialContent) -> None:
        if channel in self._partial:
            raise MalformedFrame("a message begins within the content of another message")
        self._partial[channel] = partial

    def _end_channel(self, channel: int, handler: ChannelHandler, why: str) -> None:
        """End a channel. The broker has closed it, or has confirmed that aiormq closed it.

        After this call, aiormq can use the channel number again.
        """
        del self._handlers[channel]
        self.forget(channel)
        handler.on_close(f"{CLOSED_BY_BROKER}{why}" if why else "the channel was closed")

    def _complete(self, handler: ChannelHandler, partial: PartialContent) -> None:
        properties = partial.properties or b""
        body = partial.body[0] if len(partial.body) == 1 else b"".join(partial.body)
        if partial.delivered is not None:
            tag, redelivered = partial.delivered
            handler.on_deliver(
                tag, properties, body, redelivered=redelivered, unread=partial.unread
            )
        elif partial.returned is not None:
            handler.on_return(*partial.returned, properties)

    def _check_alarm(self, method: int) -> None:
        if method in (BLOCKED, UNBLOCKED):
            self._on_alarm(method == UNBLOCKED)


def _read_short(data: bytes, offset: int) -> tuple[str, int]:
    """Return a short string, and the offset after it."""
    end = offset + 1 + data[offset]
    return data[offset + 1 : end].decode(errors="replace"), end


def _parse_return(data: bytes) -> tuple[str, str, str]:
    """Return the reply text, exchange and routing key of a `basic.return`.

    Args:
        data: Payload after the reply code.
    """
    reason, offset = _read_short(data, 0)
    exchange, offset = _read_short(data, offset)
    routing_key, offset = _read_short(data, offset)
    if offset > len(data):
        raise MalformedFrame("a basic.return frame is shorter than its fields")
    return reason, exchange, routing_key
