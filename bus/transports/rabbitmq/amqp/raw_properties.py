"""Functions that copy the properties of a message when the message is moved to another queue.

The copy keeps the properties byte for byte, except for values that belong to the old queue.
The code splits the bytes according to the layout of AMQP 0-9-1 (section 4.2).
It does not decode the values.
So the values arrive unchanged, even if they are unusual.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from struct import Struct, error, pack

__all__ = ["CopyOptions", "copy_properties", "has_too_many_headers"]

u16_at, u32_at = Struct(">H").unpack_from, Struct(">I").unpack_from

# The specification defines the flag bits of the properties in this order.
HEADERS, EXPIRATION, USER_ID = 1 << 13, 1 << 8, 1 << 4
SHORT_STRINGS = {
    1 << 15,
    1 << 14,
    1 << 10,
    1 << 9,
    EXPIRATION,
    1 << 7,
    1 << 5,
    USER_ID,
    1 << 3,
    1 << 2,
}
OCTETS = {1 << 12, 1 << 11}
TIMESTAMP = 1 << 6
MORE_FLAGS = 1
SIZES = {
    **dict.fromkeys("tbB", 1),
    **dict.fromkeys("suU", 2),
    **dict.fromkeys("iIf", 4),
    **dict.fromkeys("lLdT", 8),
    "D": 5,
    "V": 0,
}
"""Size of a table value in bytes, by type. The types in `LENGTH_FIRST` have no fixed size."""
LENGTH_FIRST = frozenset("SxFA")
UNREADABLE = (error, IndexError, KeyError, ValueError)

UNCHECKED_BYTES = 16 * 1024
"""Maximum bytes of properties that are decoded without counting their values."""
MAX_HEADER_VALUES = 4096
"""Maximum number of values in the headers, including values in tables and arrays."""

REDELIVERED, HELD_EXPIRATION = b"redelivered", b"held-expiration"
MAX_EXPIRATION_MS = 315_360_000_000
"""Maximum expiration in ms (ten years). RabbitMQ 3.10 rejects larger values."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CopyOptions:
    """Options for copies of a message's properties."""

    hold: bool
    """True if the target is a migration queue, False for any other queue.

    A message must not expire in a migration queue, so the copy has the header `held-expiration`
    instead of the property `expiration`.
    When the message leaves the migration queue, the header becomes the property again.
    """
    keep_deaths: bool = False
    """True to keep the broker's header `x-death` and related headers.

    Use it only if the target is a dead-letter queue. The headers tell why the message was
    dead-lettered. In another queue, these headers could make the broker drop the copy as a
    dead-letter cycle.
    """


def copy_properties(properties: bytes, carriage: CopyOptions, *, redelivered: bool) -> bytes:
    """Return the encoded properties of a copy.

    The copy has no `user_id`, because the broker accepts only the `user_id` of the connection's
    user. The broker's headers are removed, except the death headers if `keep_deaths` is True.
    Unreadable properties are returned unchanged.

    Args:
        properties: Property flags and values of the original message.
        carriage: Options of the copy.
        redelivered: True if the original was redelivered, so that another copy may exist. If
            True, the new copy has the header `redelivered`.
    """
    try:
        return _copy_properties(properties, carriage, redelivered=redelivered)
    except UNREADABLE:
        return properties


def has_too_many_headers(properties: bytes) -> bool:
    """Return True if the headers have too many values for pamqp.

    For each value that it decodes, pamqp copies the rest of the headers. If the headers fill a
    frame, this takes 0.5 s.
    """
    if len(properties) <= UNCHECKED_BYTES:
        return False
    try:
        offsets = _iter_value_offsets(dict(_iter_properties(properties)).get(HEADERS, bytes(4)))
        return any(count > MAX_HEADER_VALUES for count, _ in enumerate(offsets))
    except UNREADABLE:
        return False  # pamqp rejects unreadable headers as well.


def _copy_properties(properties: bytes, carriage: CopyOptions, *, redelivered: bool) -> bytes:
    fields = dict(_iter_properties(properties))
    fields.pop(USER_ID, None)
    table = dict(_iter_headers(fields.get(HEADERS, bytes(4))))
    headers = {
        name: value
        for name, value in table.items()
        if not name.lower().startswith(b"x-") or (carriage.keep_deaths and _is_death_header(name))
    }
    if redelivered:
        headers[REDELIVERED] = b"t\x01"
    if carriage.hold:
        # The sender may have written this header. Its value must not become the expiration when
        # the message leaves the migration queue.
        headers.pop(HELD_EXPIRATION, None)
    if carriage.hold and EXPIRATION in fields:
        text = fields.pop(EXPIRATION)[1:]
        headers[HELD_EXPIRATION] = b"S" + pack(">I", len(text)) + text
    elif (
        not carriage.hold
        and HELD_EXPIRATION in headers
        and (text := _read_held_expiration(headers[HELD_EXPIRATION]))
    ):
        del headers[HELD_EXPIRATION]
        fields[EXPIRATION] = bytes((len(text),)) + text
    content = b"".join(bytes((len(name),)) + name + value for name, value in headers.items())
    if content or HEADERS in fields:
        fields[HEADERS] = pack(">I", len(content)) + content
    return pack(">H", sum(fields)) + b"".join(fields[flag] for flag in sorted(fields, reverse=True))


def _read_held_expiration(value: bytes) -> bytes:
    """Return the expiration in the header `held-expiration`, or empty bytes if it is invalid.

    The value is checked, because any client can write the header. The broker closes a
    channel that publishes an invalid expiration.
    """
    text = value[5:]
    is_valid = (
        value[:1] == b"S"
        and text.isdigit()
        and len(text) <= len(str(MAX_EXPIRATION_MS))
        and int(text) <= MAX_EXPIRATION_MS
    )
    return text if is_valid else b""


def _is_death_header(name: bytes) -> bool:
    return b"death" in name.lower()


def _iter_properties(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield the flag and the bytes of each property. The bytes of a string include its length."""
    flags = u16_at(data)[0]
    if flags & MORE_FLAGS:
        raise ValueError("the properties have more flags than AMQP 0-9-1 defines")
    offset = 2
    for flag in (1 << bit for bit in range(15, 1, -1)):
        if not flags & flag:
            continue
        size = _property_size(flag, data, offset)
        if offset + size > len(data):
            raise ValueError("the last property is truncated")
        yield flag, data[offset : offset + size]
        offset += size


def _property_size(flag: int, data: bytes, offset: int) -> int:
    if flag in SHORT_STRINGS:
        return 1 + data[offset]
    if flag in OCTETS:
        return 1
    return 8 if flag == TIMESTAMP else int(4 + u32_at(data, offset)[0])


def _iter_headers(table: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield the name and the value of each header. The value begins with its type."""
    offset, end = 4, len(table)
    while offset < end:
        value_at = offset + 1 + table[offset]
        name, kind = table[offset + 1 : value_at], chr(table[value_at])
        size = 1 + (4 + u32_at(table, value_at + 1)[0] if kind in LENGTH_FIRST else SIZES[kind])
        if value_at + size > end:
            raise ValueError("the last header is truncated")
        yield name, table[value_at : value_at + size]
        offset = value_at + size


def _iter_value_offsets(table: bytes) -> Iterator[int]:
    """Yield the offset of each value, including values in tables and arrays."""
    offset, containers = 4, [(len(table), True)]
    while containers:
        end, has_names = containers[-1]
        if offset >= end:
            containers.pop()
            continue
        offset += 1 + table[offset] if has_names else 0
        yield offset
        kind = chr(table[offset])
        offset += 1
        if kind in "AF":
            containers.append((offset + 4 + u32_at(table, offset)[0], kind == "F"))
            offset += 4
        else:
            offset += 4 + u32_at(table, offset)[0] if kind in LENGTH_FIRST else SIZES[kind]
