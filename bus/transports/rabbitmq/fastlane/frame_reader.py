"""What comes off the socket: the frames of claimed channels are taken, all others are passed on as they came."""

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
"""How the reason of such an end begins; the broker's own follows."""

BLOCKED, UNBLOCKED = 0x000A003C, 0x000A003D
PROTOCOL_HEADER = ord("A")
"""The first byte of "AMQP", which a broker sends that does not speak 0-9-1."""

head_at = Struct(">BHI").unpack_from
u32_at = Struct(">I").unpack_from
u64_at = Struct(">Q").unpack_from
confirm_at = Struct(">QB").unpack_from
delivered_at = Struct(">QB").unpack_from
content_at = Struct(">BHIHHQ").unpack_from
METHOD_ID, CONFIRM_LENGTH = 4, 13
"""Bytes"""
CONTENT_HEAD = 19
"""Bytes of a header frame before its properties: the frame's head, class, weight and the body's size."""
MIN_HEADER_BYTES = 14
"""Bytes of a header frame's payload where it has no property at all."""


MAX_ADDED_HEADER_BYTES = 64 * 1024
"""Bytes by which a header may be larger than a frame: RabbitMQ adds its own (`x-delivery-count`, `x-death`) to one that filled it."""


class MalformedFrame(Exception):
    """Bytes that are no AMQP 0-9-1, or not in an order that it allows."""


class ChannelHandler(Protocol):
    """Who has claimed a channel. Nothing of this may block or raise."""

    def on_deliver(self, tag: int, properties: bytes, body: bytes, *, redelivered: bool) -> None:
        """A delivery; `properties` is the header frame's flags and values."""

    def on_confirm(self, tag: int, *, multiple: bool, ok: bool) -> None:
        """The broker's ack or nack of a publish."""

    def on_return(self, reason: str, exchange: str, routing_key: str, properties: bytes) -> None:
        """A mandatory message that no queue takes; on a confirmed channel its ack comes later, perhaps together with others."""

    def on_cancel(self) -> None:
        """The broker has ended the channel's consumer. aiormq hears of it, too."""

    def on_close(self, why: str) -> None:
        """The broker has closed the channel, or the connection is gone: nothing more comes, and nothing may be written."""


class PartialContent:
    """A delivery or return whose content has not come whole."""

    __slots__ = ("body", "delivered", "missing", "properties", "returned")

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
        self.body: list[bytes] = []


class FrameReader:
    """Reads one connection's stream, however it is cut into pieces."""

    def __init__(
        self, claims: dict[int, ChannelHandler], *, on_alarm: Callable[[bool], None]
    ) -> None:
        """`claims` is who has which channel; `on_alarm` hears whether the broker takes publishes, when it says so."""
        self.frame_max = 131072
        self.last_error: str | None = None
        """Why nothing more can be read; what comes then is dropped."""
        self._claims = claims
        self._on_alarm = on_alarm
        self._partial: dict[int, PartialContent] = {}
        self._rest: list[bytes] = []
        """The first frame that is not whole, in the pieces that it came in."""
        self._short = 0
        """Bytes that it lacks, as far as is known."""

    def feed(self, data: bytes) -> bytes:
        """Take the hot frames of `data` and of what was left before; the others, as they came."""
        if self._short > len(data):
            self._rest.append(data)
            self._short -= len(data)
            return b""
        if self.last_error is not None:
            return b""
        if self._rest:
            self._rest.append(data)
            data = b"".join(self._rest)
            self._rest.clear()
        self._short = 0
        at, passed = self._frames(data)
        if at < len(data):
            self._rest.append(data[at:])
        return passed

    def forget(self, channel: int) -> None:
        """The channel has ended; half of a delivery on it is none."""
        self._partial.pop(channel, None)

    def _frames(self, data: bytes) -> tuple[int, bytes]:  # noqa: C901 - the hottest loop: a call each would cost a tenth of it
        """Take the hot frames; where the first incomplete one begins, and the others as they came."""
        at, keep, size = 0, 0, len(data)
        passed = b""
        claims = self._claims
        try:
            while size - at >= OVERHEAD:
                kind, channel, length = head_at(data, at)
                end = at + OVERHEAD + length
                if end > size or length > self.frame_max:
                    if kind == PROTOCOL_HEADER:
                        at = size  # aiormq has an error of its own for it
                        raise MalformedFrame(  # noqa: TRY301 - the caller of this loop handles it
                            "a protocol header; the broker wants another protocol than AMQP 0-9-1"
                        )
                    if length > self.frame_max and (
                        kind != HEADER or length > self.frame_max + MAX_ADDED_HEADER_BYTES
                    ):
                        raise MalformedFrame(  # noqa: TRY301 - the caller of this loop handles it
                            f"a frame of {length} bytes, and {self.frame_max} is the most"
                        )
                    if end > size:
                        self._short = end - size
                        break
                if data[end - 1] != FRAME_END:
                    raise MalformedFrame("a frame without its end")  # noqa: TRY301 - one way out for all of them
                claimant = claims.get(channel)
                if claimant is not None:
                    taken = self._take(claimant, kind, channel, data, at + 7, end - 1)
                    if taken:
                        if keep < at:
                            passed += data[keep:at]
                        keep = at = taken
                        continue
                elif channel == 0 and kind == METHOD and length >= METHOD_ID:
                    self._alarm(u32_at(data, at + 7)[0])
                at = end
        except MalformedFrame as error:
            self.last_error = f"the broker's stream is malformed: {error}"
            return size, passed + data[keep:at]
        except Exception as error:  # noqa: BLE001 - of whatever kind: the loop would close the connection without a word
            self.last_error = f"the broker's stream could not be read: {type(error).__name__}"
            return size, passed + data[keep:at]
        return at, passed + data[keep:at]

    def _take(
        self, claimant: ChannelHandler, kind: int, channel: int, data: bytes, at: int, end: int
    ) -> int:
        """Where the frames end that were for the claimant alone, beginning with `data[at:end]`; 0 where this one was not."""
        if kind == METHOD:
            return self._method(claimant, channel, data, at, end)
        partial = self._partial.get(channel)
        if partial is None:
            return 0  # of content whose method went to aiormq
        if kind == HEADER and partial.properties is None and end - at >= MIN_HEADER_BYTES:
            partial.missing = u64_at(data, at + 4)[0]
            partial.properties = data[at + 12 : end]
        elif kind == BODY and partial.properties is not None and end - at <= partial.missing:
            partial.body.append(data[at:end])
            partial.missing -= end - at
        else:
            raise MalformedFrame(
                f"a frame of kind {kind} where it has no place in a message's content"
            )
        if not partial.missing:
            del self._partial[channel]
            self._complete(claimant, partial)
        return end + 1

    def _method(
        self, claimant: ChannelHandler, channel: int, data: bytes, at: int, end: int
    ) -> int:
        if end - at < METHOD_ID:
            raise MalformedFrame("a method frame without a method")
        method = u32_at(data, at)[0]
        if method == DELIVER:
            return self._deliver(claimant, channel, data, at, end)
        if method in (ACK, NACK):
            if end - at != CONFIRM_LENGTH:
                raise MalformedFrame(f"a confirm of {end - at} bytes")
            tag, flags = confirm_at(data, at + 4)
            claimant.on_confirm(tag, multiple=flags & 1 == 1, ok=method == ACK)
            return end + 1
        if method == RETURN:
            self._begin(channel, PartialContent(returned=_return(data[at + 6 : end])))
            return end + 1
        if method == CANCEL:
            claimant.on_cancel()
        elif method in (CLOSE_CHANNEL, CLOSED_CHANNEL):
            self._end(
                channel,
                claimant,
                _short_at(data[at + 6 : end], 0)[0] if method == CLOSE_CHANNEL else "",
            )
        return 0

    def _deliver(
        self, claimant: ChannelHandler, channel: int, data: bytes, at: int, end: int
    ) -> int:
        """Most deliveries are in the buffer as a whole, and need no `Partial`."""
        tag_at = at + 5 + data[at + 4]
        if tag_at + 9 > end:
            raise MalformedFrame("a delivery without its tag")
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
                and after <= len(data)
                and data[body - 1] == FRAME_END
                and data[after - 1] == FRAME_END
                and head_at(data, body) == (BODY, channel, size)
            ):
                content = data[start + CONTENT_HEAD : body - 1], data[body + 7 : after - 1]
                claimant.on_deliver(tag, *content, redelivered=redelivered == 1)
                return after
        self._begin(channel, PartialContent(delivered=(tag, redelivered == 1)))
        return start

    def _begin(self, channel: int, partial: PartialContent) -> None:
        if channel in self._partial:
            raise MalformedFrame("a message within another's content")
        self._partial[channel] = partial

    def _end(self, channel: int, claimant: ChannelHandler, why: str) -> None:
        """The broker closes the channel, or agrees to aiormq's closing it: its number may be another's from here on."""
        del self._claims[channel]
        self.forget(channel)
        claimant.on_close(f"{CLOSED_BY_BROKER}{why}" if why else "the channel was closed")

    def _complete(self, claimant: ChannelHandler, partial: PartialContent) -> None:
        properties = partial.properties or b""
        body = partial.body[0] if len(partial.body) == 1 else b"".join(partial.body)
        if partial.delivered is not None:
            tag, redelivered = partial.delivered
            claimant.on_deliver(tag, properties, body, redelivered=redelivered)
        elif partial.returned is not None:
            claimant.on_return(*partial.returned, properties)

    def _alarm(self, method: int) -> None:
        if method in (BLOCKED, UNBLOCKED):
            self._on_alarm(method == UNBLOCKED)


def _short_at(data: bytes, at: int) -> tuple[str, int]:
    """A short string, and where what follows it begins."""
    end = at + 1 + data[at]
    return data[at + 1 : end].decode(errors="replace"), end


def _return(data: bytes) -> tuple[str, str, str]:
    """Reply text, exchange and routing key of a basic.return, of which `data` holds what follows the code."""
    reason, at = _short_at(data, 0)
    exchange, at = _short_at(data, at)
    routing_key, at = _short_at(data, at)
    if at > len(data):
        raise MalformedFrame("a return that is shorter than its fields")
    return reason, exchange, routing_key
