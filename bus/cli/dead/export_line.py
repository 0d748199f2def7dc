"""Checks of the lines of an export. A person may have edited or cut the file.

The text of an error names the field and the problem, and never a value, because a line holds a
payload.
"""

import base64
import json
import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from bus.contracts.limits import is_number
from bus.messaging.envelope import MAX_TEXT_LENGTH
from bus.messaging.utf8_text import NotUtf8, decode_utf8
from bus.transports.wire_format import (
    KNOWN_HEADERS,
    MAX_DEADLINE_MS,
    MAX_OTHER_HEADER_BYTES,
    MAX_TOKEN_HEADER_BYTES,
)

__all__ = ["LineError", "checked_line"]

MAX_SHORT_BYTES = 255
"""Maximum bytes of a text in the properties of an AMQP message, and of the name of a header."""
INT64 = range(-(2**63), 2**63)
COUNT = range(1, MAX_DEADLINE_MS)
MAX_TIMESTAMP = 253_402_300_800
"""Seconds from the epoch to the year 10000. Any client can send a message with such a timestamp."""
HEADER_BYTES = 10
"""Encoded bytes of a number header, or of the frame around a text header."""

Check = Callable[[Any, str], None]


class LineError(ValueError):
    """Problem of a line, as the predicate of a sentence: `field id must be text`."""


def checked_line(line: bytes, *, first: bool) -> dict[str, Any]:
    """Return the JSON object of a line, in which all fields have a valid type and size.

    Args:
        line: Bytes of the line, with its line end.
        first: True if this is the first line of the file.

    Raises:
        LineError: The line is not a dead letter.
    """
    value = read_json(line, first=first)
    if not isinstance(value, dict):
        raise LineError(f"must be an object, not {_kind_of(value)}")
    for name, check in LINE.items():
        _check_member(value, name, name, check)
    return value


def read_json(line: bytes, *, first: bool) -> Any:
    """Return the value of a line of JSON, in which no key is doubled and all numbers are finite.

    A byte order mark at the start of the file is ignored.
    """
    try:
        # Only the first line of a file can begin with a byte order mark.
        text = decode_utf8(line) if first else line.decode()
    except NotUtf8 as error:
        raise LineError(f"{error}") from None
    except UnicodeDecodeError as error:
        raise LineError(f"is not UTF-8: byte {error.start + 1} of the line is invalid") from None
    if not text.strip():
        raise LineError("is empty")
    try:
        return json.loads(
            text,
            object_pairs_hook=_unique_members,
            parse_constant=_refuse_constant,
            parse_float=_parse_finite,
        )
    except json.JSONDecodeError as error:
        cut = "" if line.endswith(b"\n") else ". The end of the file may be missing"
        raise LineError(f"is not JSON: {error.msg} in column {error.colno}{cut}") from None
    except RecursionError:
        raise LineError("is nested too deeply") from None
    except LineError:
        raise
    except ValueError:  # Python refuses to read a number of thousands of digits
        raise LineError("has a number with too many digits") from None


def _unique_members(members: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(members)
    if len(value) < len(members):
        raise LineError("has an object with a doubled key")
    return value


def _refuse_constant(name: str) -> Any:
    raise LineError(f"has the number {name}, which JSON does not allow")


def _parse_finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise LineError("has a number that is too large")
    return number


# --- Checks of one value ---


def _check_member(
    value: Mapping[str, Any], name: str, path: str, check: Check, *, required: bool = True
) -> None:
    if name in value:
        check(value[name], path)
    elif required:
        raise LineError(f"has no field {path}")


def _text(most: int, *, optional: bool = False, least: int = 0) -> Check:
    """Return a check for a text of `least` to `most` bytes."""

    def check(value: Any, path: str) -> None:
        if value is None and optional:
            return
        if not isinstance(value, str):
            raise LineError(f"field {path} must be text, not {_kind_of(value)}")
        if not least <= _size_of(value, path) <= most:
            raise LineError(f"field {path} must have {least} to {most} bytes")

    return check


def _header_text(value: Any, path: str) -> None:
    """Check a text header, of which the wire format limits the characters."""
    _text(4 * MAX_TEXT_LENGTH, optional=True)(value, path)
    if value is not None and len(value) > MAX_TEXT_LENGTH:
        raise LineError(f"field {path} must have at most {MAX_TEXT_LENGTH} characters")


def _size_of(text: str, path: str) -> int:
    try:
        return len(text.encode())
    except UnicodeEncodeError:
        raise LineError(f"field {path} has a lone surrogate") from None


def _number(allowed: range, *, optional: bool = False) -> Check:
    """Return a check for a whole number."""

    def check(value: Any, path: str) -> None:
        if value is None and optional:
            return
        if not is_number(value, int):
            raise LineError(f"field {path} must be a whole number, not {_kind_of(value)}")
        if value not in allowed:
            raise LineError(f"field {path} must be {allowed.start} to {allowed.stop - 1}")

    return check


def _kind_of(value: Any) -> str:
    return "null" if value is None else JSON_KINDS.get(type(value), "another value")


JSON_KINDS: dict[type, str] = {
    bool: "a boolean",
    int: "a whole number",
    float: "a number with a fraction",
    str: "text",
    list: "an array",
    dict: "an object",
}


def _object(members: Mapping[str, Check], optional: Iterable[str] = ()) -> Check:
    """Return a check for an object. Other members are ignored: a later version may write them."""
    can_miss = frozenset(optional)

    def check(value: Any, path: str) -> None:
        if not isinstance(value, dict):
            raise LineError(f"field {path} must be an object, not {_kind_of(value)}")
        for name, check_member in members.items():
            _check_member(
                value, name, f"{path}.{name}", check_member, required=name not in can_miss
            )

    return check


def _base64(value: Any, path: str) -> None:
    if not isinstance(value, str):
        raise LineError(f"field {path} must be text, not {_kind_of(value)}")
    try:
        base64.b64decode(value, validate=True)
    except ValueError:
        raise LineError(f"field {path} is not base64") from None


def _headers(value: Any, path: str) -> None:
    if not isinstance(value, dict):
        raise LineError(f"field {path} must be an object, not {_kind_of(value)}")
    size = 0
    for number, (name, header) in enumerate(value.items(), start=1):
        where = f"{path}, entry {number},"
        size += HEADER_BYTES + _size_of(name, where)
        if name in KNOWN_HEADERS or _size_of(name, where) > MAX_SHORT_BYTES:
            raise LineError(f"field {where} has a name that a header cannot have")
        if isinstance(header, str):
            size += _size_of(header, where)
        elif not isinstance(header, int):
            raise LineError(f"field {where} must be text or a whole number, not {_kind_of(header)}")
        elif header not in INT64:
            raise LineError(f"field {where} has a number with more than 64 bits")
    if size > 2 * MAX_OTHER_HEADER_BYTES:
        raise LineError(f"field {path} has more than {2 * MAX_OTHER_HEADER_BYTES} bytes")


def _origin(value: Any, path: str) -> None:
    if not isinstance(value, str) or value not in {"worker", "broker", "unknown"}:
        raise LineError(f"field {path} must be 'worker', 'broker' or 'unknown'")


# --- Fields of a line ---

SHORT = _text(MAX_SHORT_BYTES)
OPTIONAL_SHORT = _text(MAX_SHORT_BYTES, optional=True)
NAME = _text(MAX_SHORT_BYTES, least=1)
TOKEN = _text(MAX_TOKEN_HEADER_BYTES, optional=True)
RECORD_TEXT = _text(4 * MAX_TEXT_LENGTH, optional=True)
OPTIONAL_COUNT = _number(COUNT, optional=True)

MESSAGE: dict[str, Check] = {
    "id": NAME,
    "type": SHORT,
    "source": SHORT,
    "timestamp": _number(range(MAX_TIMESTAMP)),
    "correlation_id": _header_text,
    "causation_id": _header_text,
    "in_reply_to": OPTIONAL_SHORT,
    "reply_to": OPTIONAL_SHORT,
    "traceparent": _header_text,
    "tracestate": _header_text,
    "expires": OPTIONAL_COUNT,
    "attempt": _number(COUNT),
    "proof": TOKEN,
    "counter_proof": TOKEN,
}
RECORD: dict[str, Check] = {
    "by": _origin,
    "code": _text(4 * MAX_TEXT_LENGTH, least=1),
    **dict.fromkeys(("error", "reason", "queue", "service", "host"), RECORD_TEXT),
    **dict.fromkeys(("version", "trunkline"), RECORD_TEXT),
    **dict.fromkeys(("attempts", "first_at", "last_at"), OPTIONAL_COUNT),
}
LINE: dict[str, Check] = {
    "queue": NAME,
    "record": _object(RECORD, optional=RECORD.keys() - {"by", "code"}),
    # Files of older versions have no proofs, because messages were not signed.
    "message": _object(MESSAGE, optional=("proof", "counter_proof")),
    "headers": _headers,
    "body": _base64,
}
"""Check of each field of a line."""
