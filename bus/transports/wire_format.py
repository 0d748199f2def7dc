"""Wire format 1: an envelope as AMQP properties and headers, and back. The table is in `docs/reference/wire-format.md`."""

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
}
"""What a message is, by the queue that it came from: what a sender writes does not change how it is treated."""
DURABLE_ROLES: frozenset[MessageRole] = frozenset({"event", "job"})
MAX_DEADLINE_MS = 2**53
"""ms; the largest integer that every JSON and JavaScript peer reads exactly."""
MAX_TOKEN_HEADER_BYTES = 9216
"""Bytes of a header that proves something: `bus.security.tokens` takes 8192 characters, after the word `Bearer`."""
MAX_OTHER_HEADER_BYTES = 32 * 1024
"""Bytes of all other headers together, as they are written: what does not fit a header frame could never be dead-lettered."""
TEXT_FIELD, NUMBER_FIELD = 6, 10
"""Bytes of a header beside its name, and beside the text."""

Header = str | int


@dataclass(frozen=True, slots=True, kw_only=True)
class AmqpMessage:
    """The AMQP properties that the format uses, and its headers."""

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


def encode(envelope: Envelope) -> AmqpMessage:
    """The envelope as it goes onto the wire."""
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
    """What came off the wire. Never raises: what is legible is kept, so that it can be dead-lettered, and `fault` says the rest."""
    attributes, faults = _headers(wire.headers)
    expiration, bad_expiration = _expiration(wire.expiration)
    faults += [*bad_expiration, *_property_faults(wire)]
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
        headers=_other(wire.headers),
        **attributes,
    )


def _property_faults(wire: AmqpMessage) -> list[str]:
    missing = [f"no {name}" for name in ("message_id", "type", "app_id") if not getattr(wire, name)]
    wrong = [] if wire.content_type == CONTENT_TYPE else [f"content_type is not {CONTENT_TYPE}"]
    return missing + wrong


def _headers(headers: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    attributes: dict[str, Any] = {}
    faults = []
    for name, attribute in KNOWN_HEADERS.items():
        value = headers.get(name)
        if value is None:
            continue
        if _RIGHT[name](value):
            attributes[attribute] = value
        else:
            faults.append(f"header {name} is malformed")
    return attributes, faults


def _is_text(value: object) -> bool:
    return isinstance(value, str) and len(value) <= MAX_TEXT_LENGTH


def _is_token(value: object) -> bool:
    return isinstance(value, str) and _bytes(value) <= MAX_TOKEN_HEADER_BYTES


def _is_moment(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 < value < MAX_DEADLINE_MS


_RIGHT: Mapping[str, Callable[[object], bool]] = {
    **dict.fromkeys(STRING_HEADERS, _is_text),
    **dict.fromkeys(TOKEN_HEADERS, _is_token),
    **dict.fromkeys(NUMBER_HEADERS, _is_moment),
}


def _other(headers: Mapping[str, Any]) -> dict[str, Header]:
    """A user's headers and ours for operators. The broker's own (`x-death`) stay behind: copied, several versions take them for a cycle."""
    others: dict[str, Header] = {}
    size = 0
    for name, value in headers.items():
        if (
            name in KNOWN_HEADERS
            or name.lower().startswith("x-")
            or not isinstance(value, str | int)
        ):
            continue
        size += _bytes(name) + (
            TEXT_FIELD + _bytes(value) if isinstance(value, str) else NUMBER_FIELD
        )
        if size > MAX_OTHER_HEADER_BYTES:
            break
        others[name] = value
    return others


def _bytes(text: str) -> int:
    """On the wire; of a surrogate, which has no place there, as many as of another character."""
    return len(text) if text.isascii() else len(text.encode(errors="surrogatepass"))


def broker_headers(headers: Mapping[str, Any]) -> dict[str, Any]:
    """What `_other` leaves behind."""
    return {name: value for name, value in headers.items() if name.lower().startswith("x-")}


def _expiration(text: str | None) -> tuple[int | None, list[str]]:
    if text is None:
        return None, []
    if text.isascii() and text.isdigit() and len(text) <= len(str(MAX_DEADLINE_MS)):
        return int(text), []
    return None, ["expiration is malformed"]
