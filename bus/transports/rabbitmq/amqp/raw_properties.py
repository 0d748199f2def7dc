"""A message's properties as they go on to another queue: byte for byte, but for what belongs to the queue that it leaves.

They are read as AMQP 0-9-1 lays them out (section 4.2) and never decoded: what somebody else sent arrives as it was sent.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from struct import Struct, error, pack

__all__ = ["CopyOptions", "copy_properties", "has_too_many_headers"]

u16_at, u32_at = Struct(">H").unpack_from, Struct(">I").unpack_from

# Flag bits of the properties, in the order of the specification.
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
"""Bytes of a table's value by its type; all others begin with their own length."""
LENGTH_FIRST = frozenset("SxFA")
UNREADABLE = (error, IndexError, KeyError, ValueError)

UNCHECKED_BYTES = 16 * 1024
"""Bytes of properties that are read whatever is in them."""
MAX_HEADER_VALUES = 4096
"""In the headers, those in tables and arrays included."""

REDELIVERED, HELD_EXPIRATION = b"redelivered", b"held-expiration"
MAX_EXPIRATION_MS = 315_360_000_000
"""ms, ten years: RabbitMQ 3.10 takes no longer one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CopyOptions:
    """How messages are carried."""

    hold: bool
    """Into a holding queue: what would expire there keeps its `expiration` in a header. Out of it: it gets that back."""
    keep_deaths: bool = False
    """Whether the broker's `x-death` and its kin go along: in a dead-letter queue they say why, and are no cycle."""


def copy_properties(properties: bytes, carriage: CopyOptions, *, redelivered: bool) -> bytes:
    """The flags and values of the copy.

    Without `user_id`, which only its sender may give, and without the broker's headers. `redelivered` is noted in the header of
    that name: the message may be there twice. What cannot be read goes on as it is.
    """
    try:
        return _carried(properties, carriage, redelivered=redelivered)
    except UNREADABLE:
        return properties


def has_too_many_headers(properties: bytes) -> bool:
    """Whether the headers have too many values to be decoded: pamqp copies what follows for each, half a second for a frame of them."""
    if len(properties) <= UNCHECKED_BYTES:
        return False
    try:
        values = _values(dict(_fields(properties)).get(HEADERS, bytes(4)))
        return any(count > MAX_HEADER_VALUES for count, _ in enumerate(values))
    except UNREADABLE:
        return False  # pamqp says so as well


def _carried(properties: bytes, carriage: CopyOptions, *, redelivered: bool) -> bytes:
    fields = dict(_fields(properties))
    fields.pop(USER_ID, None)
    table = dict(_entries(fields.get(HEADERS, bytes(4))))
    kept = {
        name: value
        for name, value in table.items()
        if not name.lower().startswith(b"x-") or (carriage.keep_deaths and _death(name))
    }
    if redelivered:
        kept[REDELIVERED] = b"t\x01"
    if carriage.hold:
        kept.pop(
            HELD_EXPIRATION, None
        )  # a sender's own, which would come to stand where the broker looks
    if carriage.hold and EXPIRATION in fields:
        text = fields.pop(EXPIRATION)[1:]
        kept[HELD_EXPIRATION] = b"S" + pack(">I", len(text)) + text
    elif not carriage.hold and HELD_EXPIRATION in kept and (text := _held(kept[HELD_EXPIRATION])):
        del kept[HELD_EXPIRATION]
        fields[EXPIRATION] = bytes((len(text),)) + text
    content = b"".join(bytes((len(name),)) + name + value for name, value in kept.items())
    if content or HEADERS in fields:
        fields[HEADERS] = pack(">I", len(content)) + content
    return pack(">H", sum(fields)) + b"".join(fields[flag] for flag in sorted(fields, reverse=True))


def _held(value: bytes) -> bytes:
    """The expiration that a header keeps; empty where somebody else wrote it, and it is none: the broker closes the channel for that."""
    text = value[5:]
    right = (
        value[:1] == b"S"
        and text.isdigit()
        and len(text) <= len(str(MAX_EXPIRATION_MS))
        and int(text) <= MAX_EXPIRATION_MS
    )
    return text if right else b""


def _death(name: bytes) -> bool:
    return b"death" in name.lower()


def _fields(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Each property that is there, by its flag, with its length where it has one."""
    flags = u16_at(data)[0]
    if flags & MORE_FLAGS:
        raise ValueError("more properties than the specification has")
    at = 2
    for flag in (1 << bit for bit in range(15, 1, -1)):
        if not flags & flag:
            continue
        size = _size_of(flag, data, at)
        if at + size > len(data):
            raise ValueError("cut off")
        yield flag, data[at : at + size]
        at += size


def _size_of(flag: int, data: bytes, at: int) -> int:
    if flag in SHORT_STRINGS:
        return 1 + data[at]
    if flag in OCTETS:
        return 1
    return 8 if flag == TIMESTAMP else int(4 + u32_at(data, at)[0])


def _entries(table: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Each header: its name, and its value with the type in front."""
    at, end = 4, len(table)
    while at < end:
        value_at = at + 1 + table[at]
        name, kind = table[at + 1 : value_at], chr(table[value_at])
        size = 1 + (4 + u32_at(table, value_at + 1)[0] if kind in LENGTH_FIRST else SIZES[kind])
        if value_at + size > end:
            raise ValueError("cut off")
        yield name, table[value_at : value_at + size]
        at = value_at + size


def _values(table: bytes) -> Iterator[int]:
    """Where each value begins, those within others included."""
    at, inside = 4, [(len(table), True)]
    while inside:
        end, named = inside[-1]
        if at >= end:
            inside.pop()
            continue
        at += 1 + table[at] if named else 0
        yield at
        kind = chr(table[at])
        at += 1
        if kind in "AF":
            inside.append((at + 4 + u32_at(table, at)[0], kind == "F"))
            at += 4
        else:
            at += 4 + u32_at(table, at)[0] if kind in LENGTH_FIRST else SIZES[kind]
