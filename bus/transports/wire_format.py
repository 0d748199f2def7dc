"""Wire format 1. It represents an envelope as AMQP properties, AMQP headers and a body.

The reference is `docs/reference/wire-format.md`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from bus.messaging.envelope import MAX_TEXT_LENGTH, Envelope, MessageRole, new_id
from bus.messaging.topology.model import QueueRole

__all__ = [
    "CONTENT_TYPE",
    "MAX_TEXT_LENGTH",
    "ROLES",
    "AmqpMessage",
    "broker_headers",
    "decode",
    "encode",
]

CONTENT_TYPE = "application/json"
PERSISTENT, TRANSIENT = 2, 1
ROLES: dict[QueueRole, MessageRole] = {
    "requests": "request",
    "replies": "reply",
    "jobs": "job",
    "events": "event",
    "retry": "job",
    "dead": "job",
    "control": "control",
}
"""The message role for each queue role. The role does not depend on a header of the sender."""
DURABLE_ROLES: frozenset[MessageRole] = frozenset({"event", "job"})
MAX_DEADLINE_MS = 2**53
"""Limit for the number in a header. Valid numbers are smaller. Times are in ms.

JavaScript represents all integers up to this limit exactly.
"""
MAX_TOKEN_HEADER_BYTES = 9216
"""Maximum bytes of a header with a token.

`bus.security.tokens` accepts tokens of up to 8192 characters. The prefix `Bearer ` is extra.
"""
MAX_OTHER_HEADER_BYTES = 32 * 1024
"""Maximum encoded bytes of all headers that the bus does not define.

The bus dead-letters a message by publishing a copy. All headers of the copy must fit into one
frame.
"""
TEXT_FIELD, NUMBER_FIELD = 6, 10
"""Encoded size in bytes of a text header and of a number header, without name and text."""

Header = str | int


@dataclass(frozen=True, slots=True, kw_only=True)
class AmqpMessage:
    """An AMQP message: the body, the headers, and those properties that the wire format uses."""

    body: bytes = field(repr=False)
    headers: Mapping[str, Any] = field(default_factory=dict, repr=False)
    message_id: str | None = None
    type: str | None = None
    app_id: str | None = None
    content_type: str | None = CONTENT_TYPE
    timestamp: int = 0
    delivery_mode: int = PERSISTENT
    reply_to: str | None = None
    correlation_id: str | None = None
    expiration: str | None = None


TOKEN_HEADERS = {
    "authorization": "authorization",
    "proof": "proof",
    "counter-proof": "expiry_override",
}
STRING_HEADERS = {
    "correlation-id": "correlation_id",
    "causation-id": "causation_id",
    "traceparent": "traceparent",
    "tracestate": "tracestate",
    "error": "error",
    **TOKEN_HEADERS,
}
NUMBER_HEADERS = {"deadline": "deadline", "expires": "expires", "attempt": "attempt"}
KNOWN_HEADERS = STRING_HEADERS | NUMBER_HEADERS
TRACE_HEADERS = frozenset({"traceparent", "tracestate"})
"""Headers that are ignored if they are malformed. No message is refused because of its trace."""


def encode(envelope: Envelope) -> AmqpMessage:
    """Return the AMQP message for an envelope."""
    headers: dict[str, Header] = {
        name: value for name, value in envelope.headers.items() if not name.lower().startswith("x-")
    }
    for name, attribute in KNOWN_HEADERS.items():
        value = getattr(envelope, attribute)
        if value is not None and value != "":
            headers[name] = value
    if envelope.role != "request":
        headers.pop("deadline", None)
    if envelope.role not in DURABLE_ROLES:
        headers.pop("attempt", None)
    return AmqpMessage(
        body=envelope.body,
        headers=headers,
        message_id=envelope.id,
        type=envelope.type,
        app_id=envelope.source,
        timestamp=envelope.timestamp,
        delivery_mode=PERSISTENT if envelope.role in DURABLE_ROLES else TRANSIENT,
        reply_to=envelope.reply_to,
        correlation_id=envelope.in_reply_to,
        expiration=None if envelope.expiration is None else str(envelope.expiration),
    )


def decode(wire: AmqpMessage, *, role: MessageRole, queue: str | None, received: int) -> Envelope:
    """Return the envelope of a received message. The function never raises an error.

    If the message is malformed, the envelope has only the valid values, and the attribute
    `fault` lists the errors. So the bus can dead-letter the message.
    """
    attributes, faults = _read_known_headers(wire.headers)
    expiration, bad_expiration = _parse_expiration(wire.expiration)
    faults += [*bad_expiration, *_check_properties(wire)]
    return Envelope(
        id=wire.message_id or new_id(),
        type=wire.type or "",
        role=role,
        source=wire.app_id or "",
        body=wire.body,
        timestamp=wire.timestamp,
        in_reply_to=wire.correlation_id,
        reply_to=wire.reply_to,
        expiration=expiration,
        received=received,
        queue=queue,
        fault="; ".join(faults) or None,
        headers=_copy_other_headers(wire.headers),
        **attributes,
    )


def _check_properties(wire: AmqpMessage) -> list[str]:
    missing = [f"no {name}" for name in ("message_id", "type", "app_id") if not getattr(wire, name)]
    wrong = [] if wire.content_type == CONTENT_TYPE else [f"content_type is not {CONTENT_TYPE}"]
    return missing + wrong


def _read_known_headers(headers: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    attributes: dict[str, Any] = {}
    faults = []
    for name, attribute in KNOWN_HEADERS.items():
        value = headers.get(name)
        if value is None:
            continue
        if _HEADER_CHECKS[name](value):
            attributes[attribute] = value
        elif name not in TRACE_HEADERS:
            faults.append(f"header {name} is malformed")
    return attributes, faults


def _is_text(value: object) -> bool:
    return isinstance(value, str) and len(value) <= MAX_TEXT_LENGTH


def _is_token(value: object) -> bool:
    return isinstance(value, str) and _utf8_size(value) <= MAX_TOKEN_HEADER_BYTES


def _is_positive_integer(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 < value < MAX_DEADLINE_MS


_HEADER_CHECKS: Mapping[str, Callable[[object], bool]] = {
    **dict.fromkeys(STRING_HEADERS, _is_text),
    **dict.fromkeys(TOKEN_HEADERS, _is_token),
    **dict.fromkeys(NUMBER_HEADERS, _is_positive_integer),
}


def _copy_other_headers(headers: Mapping[str, Any]) -> dict[str, Header]:
    """Return the headers that are neither envelope attributes nor headers of the broker.

    Values that are not texts or numbers, and headers beyond `MAX_OTHER_HEADER_BYTES`, are left out.
    The broker's headers, such as `x-death`, must not be in a copy of the message. Several versions
    of RabbitMQ would treat the copy as a dead-letter cycle.
    """
    kept: dict[str, Header] = {}
    size = 0
    for name, value in headers.items():
        if (
            name in KNOWN_HEADERS
            or name.lower().startswith("x-")
            or not isinstance(value, str | int)
        ):
            continue
        size += _utf8_size(name) + (
            TEXT_FIELD + _utf8_size(value) if isinstance(value, str) else NUMBER_FIELD
        )
        if size > MAX_OTHER_HEADER_BYTES:
            break
        kept[name] = value
    return kept


def _utf8_size(text: str) -> int:
    """Return the UTF-8 size of a text. A lone surrogate, invalid in UTF-8, counts as 3 bytes."""
    return len(text) if text.isascii() else len(text.encode(errors="surrogatepass"))


def broker_headers(headers: Mapping[str, Any]) -> dict[str, Any]:
    """Return the broker's headers. The result of `decode` does not contain them."""
    return {name: value for name, value in headers.items() if name.lower().startswith("x-")}


def _parse_expiration(text: str | None) -> tuple[int | None, list[str]]:
    if text is None:
        return None, []
    if text.isascii() and text.isdigit() and len(text) <= len(str(MAX_DEADLINE_MS)):
        return int(text), []
    return None, ["expiration is malformed"]
