"""Wire format 1 straight to and from AMQP's bytes, for what the bus itself sends; anything else takes the long way by pamqp.

It makes and reads what `bus.transports.wire_format` with pamqp makes and reads; a test holds the two to each other.
"""

from collections.abc import Mapping
from functools import lru_cache
from struct import Struct, error
from typing import Any

from pamqp import header as pamqp_header

from bus.messaging.envelope import Envelope, MessageRole
from bus.transports import wire_format as wire
from bus.transports.rabbitmq.amqp.pamqp_codec import from_properties
from bus.transports.rabbitmq.amqp.raw_properties import has_too_many_headers

__all__ = ["message_id_of", "read_envelope", "read_headers", "write_properties"]

# Flag bits of the properties, in the order of the specification.
CONTENT_TYPE, CONTENT_ENCODING, HEADERS, DELIVERY_MODE, PRIORITY = (
    1 << 15,
    1 << 14,
    1 << 13,
    1 << 12,
    1 << 11,
)
CORRELATION_ID, REPLY_TO, EXPIRATION, MESSAGE_ID, TIMESTAMP = (
    1 << 10,
    1 << 9,
    1 << 8,
    1 << 7,
    1 << 6,
)
TYPE, USER_ID, APP_ID, CLUSTER_ID = 1 << 5, 1 << 4, 1 << 3, 1 << 2
RARE = CONTENT_ENCODING | PRIORITY | CLUSTER_ID | 3
"""What the bus never sends; 3: the bits that AMQP reserves."""

STRING, INTEGER = ord("S"), ord("l")
u16_at, u32_at = Struct(">H").unpack_from, Struct(">I").unpack_from
u64_at, i64_at = Struct(">Q").unpack_from, Struct(">q").unpack_from
u16, u32, u64, i64 = (Struct(f">{code}").pack for code in "HIQq")

LENGTHS = [bytes((length,)) for length in range(256)]
JSON = LENGTHS[len(wire.CONTENT_TYPE)] + wire.CONTENT_TYPE.encode()
STRINGS = {name.encode(): attribute for name, attribute in wire.STRING_HEADERS.items()}
TOKENS = frozenset(wire.TOKEN_HEADERS.values())
NUMBERS = {name.encode(): attribute for name, attribute in wire.NUMBER_HEADERS.items()}
SHORT = wire.MAX_OTHER_HEADER_BYTES // 4
"""Bytes of properties that no limit of ours can be exceeded in, however the characters and digits are counted."""
MAX_TIMESTAMP_SECONDS = 0xFFFFFFFF
"""Seconds; pamqp takes a later timestamp for milliseconds."""


class NeedsSlowPath(Exception):
    """Something that the bus does not send."""


# --- out -----------------------------------------------------------------------------------------------------------


def write_properties(envelope: Envelope, *, user: str | None = None) -> bytes:
    """The flags and values of a header frame; `wire.encode` says what goes where. `user`: the connection's, see `codec.user_id_of`."""
    flags = CONTENT_TYPE | HEADERS | DELIVERY_MODE | MESSAGE_ID | TIMESTAMP | TYPE | APP_ID
    table = _table(envelope)
    parts = [
        JSON,
        u32(len(table)),
        table,
        b"\x02" if envelope.role in wire.DURABLE_ROLES else b"\x01",
    ]
    if envelope.in_reply_to is not None:
        flags |= CORRELATION_ID
        parts.append(_short(envelope.in_reply_to))
    if envelope.reply_to is not None:
        flags |= REPLY_TO
        parts.append(often_short(envelope.reply_to))
    if envelope.expiration is not None:
        flags |= EXPIRATION
        parts.append(_short(str(envelope.expiration)))
    parts += (_short(envelope.id), u64(envelope.timestamp), often_short(envelope.type))
    source = often_short(envelope.source)
    if user == envelope.source:
        flags |= USER_ID
        parts.append(source)
    parts.append(source)
    return u16(flags) + b"".join(parts)


def _short(text: str) -> bytes:
    data = text.encode()
    return LENGTHS[len(data)] + data  # IndexError where it is over 255 bytes


often_short = lru_cache(maxsize=1024)(_short)
"""For what many messages have in common."""


def _text(field: bytes, text: str) -> bytes:
    data = text.encode()
    return field + u32(len(data)) + data


CORRELATION, CAUSATION, TRACEPARENT, TRACESTATE, ERROR, AUTHORIZATION, PROOF, COUNTER_PROOF = (
    _short(name) + b"S" for name in wire.STRING_HEADERS
)
DEADLINE, EXPIRES, ATTEMPT = (_short(name) + b"l" for name in wire.NUMBER_HEADERS)


def _table(envelope: Envelope) -> bytes:  # noqa: C901, PLR0912 - a field a line; a loop over them costs twice as much
    if envelope.headers and not wire.KNOWN_HEADERS.keys().isdisjoint(envelope.headers):
        return b"".join(
            _field(name, value) for name, value in wire.encode(envelope).headers.items()
        )
    table = _text(CORRELATION, envelope.correlation_id) if envelope.correlation_id else b""
    if envelope.causation_id:
        table += _text(CAUSATION, envelope.causation_id)
    if envelope.traceparent:
        table += _text(TRACEPARENT, envelope.traceparent)
    if envelope.tracestate:
        table += _text(TRACESTATE, envelope.tracestate)
    if envelope.error:
        table += _text(ERROR, envelope.error)
    if envelope.authorization:
        table += _text(AUTHORIZATION, envelope.authorization)
    if envelope.proof:
        table += _text(PROOF, envelope.proof)
    if envelope.expiry_override:
        table += _text(COUNTER_PROOF, envelope.expiry_override)
    if envelope.deadline is not None and envelope.role == "request":
        table += DEADLINE + i64(envelope.deadline)
    if envelope.expires is not None:
        table += EXPIRES + i64(envelope.expires)
    if envelope.role in wire.DURABLE_ROLES:
        table += ATTEMPT + i64(envelope.attempt)
    for name, value in envelope.headers.items():
        if not name.lower().startswith("x-"):
            table += _field(name, value)
    return table


def _field(name: str, value: str | int) -> bytes:
    if isinstance(value, str):
        return _text(_short(name) + b"S", value)
    if isinstance(value, bool):
        return _short(name) + (b"t\x01" if value else b"t\x00")
    return _short(name) + b"l" + i64(value)


# --- in ------------------------------------------------------------------------------------------------------------


def read_envelope(
    properties: bytes, body: bytes, *, role: MessageRole, queue: str | None, received: int
) -> Envelope:
    """What came off the wire; never raises, as `wire.decode`."""
    try:
        return _read(properties, body, role, queue, received)
    except UNREADABLE:
        return wire.decode(
            _decode_with_pamqp(properties, body), role=role, queue=queue, received=received
        )


UNREADABLE = (NeedsSlowPath, error, IndexError, ValueError)
"""What `_read` raises of what the bus does not send, or of bytes that end too early or are no text."""


def _decode_with_pamqp(properties: bytes, body: bytes) -> wire.AmqpMessage:
    header = pamqp_header.ContentHeader()
    if has_too_many_headers(properties):
        return wire.AmqpMessage(body=body, content_type=None)
    try:
        header.unmarshal(b"\x00\x3c\x00\x00" + u64(len(body)) + properties)
    except Exception:  # noqa: BLE001 - pamqp raises what it happens upon; nothing legible is left but the body
        return wire.AmqpMessage(body=body, content_type=None)
    return from_properties(header.properties, body)


def _read(  # noqa: C901 - one branch a property
    properties: bytes, body: bytes, role: MessageRole, queue: str | None, received: int
) -> Envelope:
    flags = u16_at(properties)[0]
    if (
        len(properties) > SHORT
        or flags & RARE
        or not flags & (MESSAGE_ID | TYPE | APP_ID) == MESSAGE_ID | TYPE | APP_ID
    ):
        raise NeedsSlowPath
    if not flags & CONTENT_TYPE or not properties.startswith(JSON, 2):
        raise NeedsSlowPath
    at = 2 + len(JSON)
    known: dict[str, Any] = {}
    if flags & HEADERS:
        at = _read_table(properties, at, known)
    if flags & DELIVERY_MODE:
        at += 1
    if flags & CORRELATION_ID:
        text, at = _short_at(properties, at)
        known["in_reply_to"] = text or None
    if flags & REPLY_TO:
        text, at = _short_at(properties, at)
        known["reply_to"] = text or None
    if flags & EXPIRATION:
        text, at = _short_at(properties, at)
        known["expiration"] = _digits(text)
    # The rest is written out: three calls less for each message that arrives.
    end = at + 1 + properties[at]
    message_id, at = properties[at + 1 : end].decode(), end
    timestamp = 0
    if flags & TIMESTAMP:
        timestamp = u64_at(properties, at)[0]
        at += 8
    end = at + 1 + properties[at]
    type_, at = properties[at + 1 : end].decode(), end
    if flags & USER_ID:
        at += (
            1 + properties[at]
        )  # the broker has checked it; who sent the message is proven by other means
    end = at + 1 + properties[at]
    source = properties[at + 1 : end].decode()
    if not (message_id and type_ and source) or timestamp > MAX_TIMESTAMP_SECONDS:
        raise NeedsSlowPath
    return Envelope(
        id=message_id,
        type=type_,
        role=role,
        source=source,
        body=body,
        timestamp=timestamp,
        received=received,
        queue=queue,
        **known,
    )


def _read_table(data: bytes, at: int, known: dict[str, Any]) -> int:
    """Put the headers into `known`; where what follows the table begins."""
    end = at + 4 + u32_at(data, at)[0]
    at += 4
    others: dict[str, str | int] = {}
    while at < end:
        name_end = at + 1 + data[at]
        name, kind = data[at + 1 : name_end], data[name_end]
        at = name_end + 1
        if kind == STRING:
            size = u32_at(data, at)[0]
            at += 4 + size
            text = data[at - size : at].decode()
            attribute = STRINGS.get(name)
            if attribute is None:
                _other(others, name, text)
            elif size > wire.MAX_TEXT_LENGTH and (
                attribute not in TOKENS or size > wire.MAX_TOKEN_HEADER_BYTES
            ):
                raise NeedsSlowPath
            else:
                known[attribute] = text
        elif kind == INTEGER:
            value = i64_at(data, at)[0]
            at += 8
            attribute = NUMBERS.get(name)
            if attribute is None:
                _other(others, name, value)
            elif not 0 < value < wire.MAX_DEADLINE_MS:
                raise NeedsSlowPath
            else:
                known[attribute] = value
        else:
            raise NeedsSlowPath
    if at != end:
        raise NeedsSlowPath
    if others:
        known["headers"] = others
    return at


def _other(others: dict[str, str | int], name: bytes, value: str | int) -> None:
    if name in STRINGS or name in NUMBERS or name[:2].lower() == b"x-":
        raise NeedsSlowPath  # ours with a value of the wrong type, or the broker's own
    others[name.decode()] = value


def _short_at(data: bytes, at: int) -> tuple[str, int]:
    end = at + 1 + data[at]
    return data[at + 1 : end].decode(), end


def _digits(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= len(str(wire.MAX_DEADLINE_MS))):
        raise NeedsSlowPath
    return int(text)


def read_headers(properties: bytes) -> Mapping[str, Any]:
    """Every header, the broker's own as well; none where they are illegible."""
    return _decode_with_pamqp(properties, b"").headers


def message_id_of(properties: bytes) -> str:
    """The message id of a message that came back; empty where it has none."""
    try:
        return _read(properties, b"", "event", None, 0).id
    except UNREADABLE:
        return _decode_with_pamqp(properties, b"").message_id or ""
