"""A fast encoder and decoder of wire format 1, from envelopes to AMQP bytes and back.

The fast decoder supports only properties that the bus writes. pamqp decodes all other
properties (slow path). The fast path and the slow path produce the same values. A property test
compares the values.
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

__all__ = [
    "message_id_of",
    "read_envelope",
    "read_headers",
    "sender_and_id_of",
    "write_properties",
]

# The specification defines the flag bits of the properties in this order.
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
"""Flags that the bus never sets. They include the two lowest bits, because AMQP reserves these."""

STRING, INTEGER = ord("S"), ord("l")
u16_at, u32_at = Struct(">H").unpack_from, Struct(">I").unpack_from
u64_at, i64_at = Struct(">Q").unpack_from, Struct(">q").unpack_from
u16, u32, u64, i64 = (Struct(f">{code}").pack for code in "HIQq")

LENGTHS = [bytes((length,)) for length in range(256)]
JSON = LENGTHS[len(wire.CONTENT_TYPE)] + wire.CONTENT_TYPE.encode()
STRINGS = {name.encode(): attribute for name, attribute in wire.STRING_HEADERS.items()}
TOKENS = frozenset(wire.TOKEN_HEADERS.values())
NUMBERS = {name.encode(): attribute for name, attribute in wire.NUMBER_HEADERS.items()}
MAX_FAST_BYTES = wire.MAX_OTHER_HEADER_BYTES // 4
"""Maximum bytes of properties for the fast path.

Smaller properties cannot exceed `MAX_OTHER_HEADER_BYTES`, so the fast path does not check
this limit.
"""
MAX_TIMESTAMP_SECONDS = 0xFFFFFFFF
"""Maximum timestamp in seconds. pamqp interprets larger values as milliseconds."""


class NeedsSlowPath(Exception):
    """A signal that pamqp must decode the properties. The fast decoder does not support them."""


# --- Writing ---


def write_properties(envelope: Envelope, *, user: str | None = None) -> bytes:
    """Encode the properties of a message. The result is the flags and values of a header frame.

    `wire_format.encode` returns the same properties in decoded form.

    Args:
        envelope: Message to send.
        user: User name of the connection, see `pamqp_codec.user_id_of`.

    Raises:
        IndexError: A short string has more than 255 bytes.
        ValueError: A text contains a surrogate.
        struct.error: A number does not fit into 64 bits.
    """
    flags = CONTENT_TYPE | HEADERS | DELIVERY_MODE | MESSAGE_ID | TIMESTAMP | TYPE | APP_ID
    table = _encode_table(envelope)
    parts = [
        JSON,
        u32(len(table)),
        table,
        b"\x02" if envelope.role in wire.DURABLE_ROLES else b"\x01",
    ]
    if envelope.in_reply_to is not None:
        flags |= CORRELATION_ID
        parts.append(_encode_short(envelope.in_reply_to))
    if envelope.reply_to is not None:
        flags |= REPLY_TO
        parts.append(encode_common_short(envelope.reply_to))
    if envelope.expiration is not None:
        flags |= EXPIRATION
        parts.append(_encode_short(str(envelope.expiration)))
    parts += (
        _encode_short(envelope.id),
        u64(envelope.timestamp),
        encode_common_short(envelope.type),
    )
    source = encode_common_short(envelope.source)
    if user == envelope.source:
        flags |= USER_ID
        parts.append(source)
    parts.append(source)
    return u16(flags) + b"".join(parts)


def _encode_short(text: str) -> bytes:
    data = text.encode()
    return LENGTHS[len(data)] + data  # A text of more than 255 bytes raises IndexError.


encode_common_short = lru_cache(maxsize=1024)(_encode_short)
"""Cached encoder for short strings that are the same in many messages."""


def _encode_text(field: bytes, text: str) -> bytes:
    data = text.encode()
    return field + u32(len(data)) + data


CORRELATION, CAUSATION, TRACEPARENT, TRACESTATE, ERROR, AUTHORIZATION, PROOF, COUNTER_PROOF = (
    _encode_short(name) + b"S" for name in wire.STRING_HEADERS
)
DEADLINE, EXPIRES, ATTEMPT = (_encode_short(name) + b"l" for name in wire.NUMBER_HEADERS)


def _encode_table(  # noqa: C901, PLR0912 - a loop over the fields takes twice the time
    envelope: Envelope,
) -> bytes:
    if envelope.headers and not wire.KNOWN_HEADERS.keys().isdisjoint(envelope.headers):
        return b"".join(
            _encode_field(name, value) for name, value in wire.encode(envelope).headers.items()
        )
    table = _encode_text(CORRELATION, envelope.correlation_id) if envelope.correlation_id else b""
    if envelope.causation_id:
        table += _encode_text(CAUSATION, envelope.causation_id)
    if envelope.traceparent:
        table += _encode_text(TRACEPARENT, envelope.traceparent)
    if envelope.tracestate:
        table += _encode_text(TRACESTATE, envelope.tracestate)
    if envelope.error:
        table += _encode_text(ERROR, envelope.error)
    if envelope.authorization:
        table += _encode_text(AUTHORIZATION, envelope.authorization)
    if envelope.proof:
        table += _encode_text(PROOF, envelope.proof)
    if envelope.expiry_override:
        table += _encode_text(COUNTER_PROOF, envelope.expiry_override)
    if envelope.deadline is not None and envelope.role == "request":
        table += DEADLINE + i64(envelope.deadline)
    if envelope.expires is not None:
        table += EXPIRES + i64(envelope.expires)
    if envelope.role in wire.DURABLE_ROLES:
        table += ATTEMPT + i64(envelope.attempt)
    for name, value in envelope.headers.items():
        if not name.lower().startswith("x-"):
            table += _encode_field(name, value)
    return table


def _encode_field(name: str, value: str | int) -> bytes:
    if isinstance(value, str):
        return _encode_text(_encode_short(name) + b"S", value)
    if isinstance(value, bool):
        return _encode_short(name) + (b"t\x01" if value else b"t\x00")
    return _encode_short(name) + b"l" + i64(value)


# --- Reading ---


def read_envelope(
    properties: bytes, body: bytes, *, role: MessageRole, queue: str | None, received: int
) -> Envelope:
    """Decode a delivery. Like `wire_format.decode`, the function never raises an error."""
    try:
        return _read(properties, body, role, queue, received)
    except UNREADABLE:
        return wire.decode(
            _decode_with_pamqp(properties, body), role=role, queue=queue, received=received
        )


UNREADABLE = (NeedsSlowPath, error, IndexError, ValueError)
"""Errors of `_read`. The bus did not send the value, or the bytes are truncated or invalid."""


def _decode_with_pamqp(properties: bytes, body: bytes) -> wire.AmqpMessage:
    header = pamqp_header.ContentHeader()
    if has_too_many_headers(properties):
        return wire.AmqpMessage(body=body, content_type=None)
    try:
        header.unmarshal(b"\x00\x3c\x00\x00" + u64(len(body)) + properties)
    except Exception:  # noqa: BLE001 - pamqp raises errors of any type; the body is still readable
        return wire.AmqpMessage(body=body, content_type=None)
    return from_properties(header.properties, body)


def _read(  # noqa: C901 - one branch for each property
    properties: bytes, body: bytes, role: MessageRole, queue: str | None, received: int
) -> Envelope:
    flags = u16_at(properties)[0]
    if (
        len(properties) > MAX_FAST_BYTES
        or flags & RARE
        or not flags & (MESSAGE_ID | TYPE | APP_ID) == MESSAGE_ID | TYPE | APP_ID
    ):
        raise NeedsSlowPath
    if not flags & CONTENT_TYPE or not properties.startswith(JSON, 2):
        raise NeedsSlowPath
    offset = 2 + len(JSON)
    attributes: dict[str, Any] = {}
    if flags & HEADERS:
        offset = _read_table(properties, offset, attributes)
    if flags & DELIVERY_MODE:
        offset += 1
    if flags & CORRELATION_ID:
        text, offset = _read_short(properties, offset)
        attributes["in_reply_to"] = text or None
    if flags & REPLY_TO:
        text, offset = _read_short(properties, offset)
        attributes["reply_to"] = text or None
    if flags & EXPIRATION:
        text, offset = _read_short(properties, offset)
        attributes["expiration"] = _parse_digits(text)
    # The other short strings are decoded inline. This saves three calls for each message.
    end = offset + 1 + properties[offset]
    message_id, offset = properties[offset + 1 : end].decode(), end
    timestamp = 0
    if flags & TIMESTAMP:
        timestamp = u64_at(properties, offset)[0]
        offset += 8
    end = offset + 1 + properties[offset]
    type_, offset = properties[offset + 1 : end].decode(), end
    if flags & USER_ID:
        # The user id is skipped, because signatures prove the sender.
        offset += 1 + properties[offset]
    end = offset + 1 + properties[offset]
    source = properties[offset + 1 : end].decode()
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
        **attributes,
    )


def _read_table(data: bytes, offset: int, attributes: dict[str, Any]) -> int:
    """Add the headers to `attributes`, and return the offset after the table."""
    end = offset + 4 + u32_at(data, offset)[0]
    offset += 4
    other_headers: dict[str, str | int] = {}
    while offset < end:
        name_end = offset + 1 + data[offset]
        name, kind = data[offset + 1 : name_end], data[name_end]
        offset = name_end + 1
        if kind == STRING:
            size = u32_at(data, offset)[0]
            offset += 4 + size
            text = data[offset - size : offset].decode()
            attribute = STRINGS.get(name)
            if attribute is None:
                _add_other_header(other_headers, name, text)
            elif size > wire.MAX_TEXT_LENGTH and (
                attribute not in TOKENS or size > wire.MAX_TOKEN_HEADER_BYTES
            ):
                raise NeedsSlowPath
            else:
                attributes[attribute] = text
        elif kind == INTEGER:
            value = i64_at(data, offset)[0]
            offset += 8
            attribute = NUMBERS.get(name)
            if attribute is None:
                _add_other_header(other_headers, name, value)
            elif not 0 < value < wire.MAX_DEADLINE_MS:
                raise NeedsSlowPath
            else:
                attributes[attribute] = value
        else:
            raise NeedsSlowPath
    if offset != end:
        raise NeedsSlowPath
    if other_headers:
        attributes["headers"] = other_headers
    return offset


def _add_other_header(other_headers: dict[str, str | int], name: bytes, value: str | int) -> None:
    # The slow path handles a header of the bus that has the wrong type. It also handles the headers
    # that the broker adds.
    if name in STRINGS or name in NUMBERS or name[:2].lower() == b"x-":
        raise NeedsSlowPath
    other_headers[name.decode()] = value


def _read_short(data: bytes, offset: int) -> tuple[str, int]:
    end = offset + 1 + data[offset]
    return data[offset + 1 : end].decode(), end


def _parse_digits(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= len(str(wire.MAX_DEADLINE_MS))):
        raise NeedsSlowPath
    return int(text)


def read_headers(properties: bytes) -> Mapping[str, Any]:
    """Return all headers, including the broker's. Return {} if the headers are unreadable."""
    return _decode_with_pamqp(properties, b"").headers


def message_id_of(properties: bytes) -> str:
    """Return the message id of a returned message, or an empty text if the message has no id."""
    return sender_and_id_of(properties)[1]


def sender_and_id_of(properties: bytes) -> tuple[str, str]:
    """Return the sender and the message id of a returned message. A missing value is empty."""
    try:
        envelope = _read(properties, b"", "event", None, 0)
    except UNREADABLE:
        message = _decode_with_pamqp(properties, b"")
        return message.app_id or "", message.message_id or ""
    return envelope.source, envelope.id
