"""A tapped message as a line of text, or as JSON. Tokens and proofs are never part of it."""

import base64
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from bus.cli.output import format_json
from bus.messaging.envelope import Envelope
from bus.messaging.labels import one_line, short_id
from bus.operations.message_trace.notes import clock_time

__all__ = ["Seen", "header_lines", "line", "to_json"]

MAX_TEXT_LENGTH = 200
MAX_HEADER_LENGTH = 500
TYPE_WIDTH, SOURCE_WIDTH = 32, 12
KIB, MIB = 1024, 1024 * 1024
SECRET_WORDS = ("authorization", "proof", "token", "secret", "password", "cookie")
"""Parts of the names of headers that are never shown. Any client chooses the letter case."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """A tapped message, and the result of the check of its signature."""

    envelope: Envelope
    size: int
    """Bytes of the payload as it was sent."""
    signature: str
    body: bytes | None = None
    """Payload to show. None if it is hidden."""


def line(seen: Seen) -> str:
    """Return the line of a message: time, kind, type, sender, ids, size and signature."""
    envelope = seen.envelope
    time_ = clock_time(envelope.received or 0, precise=True)
    type_ = cut(envelope.type) or "-"
    source = cut(envelope.source) or "-"
    correlation = short_id(envelope.correlation_id or envelope.id)
    attempt = f", attempt {envelope.attempt}" if envelope.attempt > 1 else ""
    return (
        f"{time_}  {envelope.role:<7}  {type_:<{TYPE_WIDTH}}  from {source:<{SOURCE_WIDTH}}  "
        f"id {short_id(envelope.id)}  correlation {correlation}  {format_size(seen.size)}, "
        f"{seen.signature}{attempt}"
    )


def header_lines(seen: Seen) -> Iterator[str]:
    """Yield a line for each attribute and header, except tokens and proofs."""
    for name, value in visible(seen.envelope).items():
        yield f"    {cut(name)}: {one_line(str(value)[:MAX_HEADER_LENGTH])}"


def payload_text(body: bytes) -> str:
    """Return a payload for a terminal: indented JSON, or a Python bytes literal."""
    try:
        return format_json(json.loads(body), indent=2)
    except (ValueError, RecursionError):
        return repr(body)


def to_json(seen: Seen) -> dict[str, Any]:
    """Return a message as JSON. The keys are part of the command line's interface."""
    envelope = seen.envelope
    value: dict[str, Any] = {
        "received": envelope.received,
        "kind": envelope.role,
        "type": envelope.type,
        "source": envelope.source,
        "id": envelope.id,
        "correlation_id": envelope.correlation_id or envelope.id,
        "causation_id": envelope.causation_id,
        "attempt": envelope.attempt,
        "bytes": seen.size,
        "signature": seen.signature,
        "malformed": envelope.fault,
        "headers": visible(envelope),
    }
    if seen.body is not None:
        value["body"] = base64.b64encode(seen.body).decode()
    return value


def visible(envelope: Envelope) -> dict[str, str | int]:
    """Return the attributes and headers of a message, without tokens and proofs."""
    attributes = {
        "id": envelope.id,
        "correlation-id": envelope.correlation_id or None,
        "causation-id": envelope.causation_id,
        "reply-to": envelope.reply_to,
        "traceparent": envelope.traceparent,
        "tracestate": envelope.tracestate,
        "timestamp": envelope.timestamp or None,
        "deadline": envelope.deadline,
        "expires": envelope.expires,
        "malformed": envelope.fault,
    }
    return {
        **{name: value for name, value in attributes.items() if value is not None},
        **{
            name: value
            for name, value in envelope.headers.items()
            if not any(word in name.lower() for word in SECRET_WORDS)
        },
    }


def cut(text: str) -> str:
    """Return the text as one line of limited length."""
    return one_line(text[:MAX_TEXT_LENGTH])


def format_size(size: int) -> str:
    """Return a size in bytes, KiB or MiB."""
    if size < KIB:
        return f"{size} bytes"
    return f"{size / KIB:.1f} KiB" if size < MIB else f"{size / MIB:.1f} MiB"
