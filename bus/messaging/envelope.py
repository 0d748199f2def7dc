"""Envelope: the attributes of a message, and its body as bytes."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Literal

from msgspec import DecodeError, Struct, msgpack
from msgspec.structs import replace
from pydantic import Field
from typing_extensions import override

from bus.contracts.contract import Message, encode
from bus.errors import (
    BusError,
    Executed,
    Internal,
    Undecodable,
    code_of,
    has_safe_text,
    member_errors,
    safe_reason,
)
from bus.messaging.call_limits import CallLimits
from bus.messaging.error_state import executed_on_wire, retry_after_of
from bus.messaging.ids import uuid4_factory

__all__ = [
    "ERROR_TYPE",
    "MAX_TEXT_LENGTH",
    "NO_HEADERS",
    "PROGRESS_SUFFIX",
    "REPLY_SUFFIX",
    "Envelope",
    "ErrorReply",
    "MessageRole",
    "Progress",
    "error_reply",
    "from_stored_bytes",
    "is_final",
    "new_id",
    "progress_update",
    "reply",
    "to_stored_bytes",
]

MessageRole = Literal["request", "reply", "event", "job", "update", "control"]
"""Role of a message.

The role is not on the wire. A receiver derives the role from the queue. A sender derives the role
from the contract.
"""

REPLY_SUFFIX, PROGRESS_SUFFIX = ".reply", ".progress"
ERROR_TYPE = "bus.error.v1"
ERROR_PREFIX = "bus.error."
"""Prefix of the type of error replies in every version."""
MAX_TEXT_LENGTH = 1024
"""Maximum number of characters in a text header of the bus.

A message inherits text headers from the message that caused it. Therefore a long header would be
copied many times.
"""
HIDDEN = frozenset({"body", "authorization", "proof", "expiry_override", "limits"})
NO_HEADERS: Mapping[str, str | int] = MappingProxyType({})


# The class is a msgspec.Struct, because policies often replace attributes. `replace` takes 9 µs for
# a frozen dataclass of this size, and 0.5 µs for a struct. No attribute refers back to the
# envelope, so the garbage collector does not need to traverse envelopes (gc=False). A store keeps
# envelopes without the attributes that have their default (omit_defaults=True).
class Envelope(Struct, frozen=True, kw_only=True, gc=False, omit_defaults=True):
    """Attributes of a message, and its body as bytes.

    Wire format 1 (`docs/reference/wire-format.md`) specifies the position of each attribute in an
    AMQP message. Handlers and middlewares receive envelopes. `replace` returns a changed copy.
    """

    id: str
    """Unique id of the message. All attempts and redeliveries have the same id."""
    type: str
    """Type of the message, `<name>.v<version>`.

    A reply has the request's type with the suffix `.reply`. An error reply has `bus.error.v1`.
    """
    role: MessageRole
    """Role of the message: `request`, `reply`, `event`, `job`, `update` or `control`.

    It is never on the wire.
    """
    source: str
    """Service that sent the message."""
    body: bytes = b""
    """Payload as JSON (UTF-8). The repr hides it, because it may contain confidential data."""
    timestamp: int = 0
    """Time when the message was first sent, in seconds since the epoch."""
    correlation_id: str = ""
    """Id that a message shares with all messages that it causes, directly or indirectly."""
    causation_id: str | None = None
    """Id of the message that was being handled when this message was sent."""
    in_reply_to: str | None = None
    """Replies and job updates: id of the request or job. AMQP carries it as `correlation_id`."""
    reply_to: str | None = None
    """Requests and jobs: queue for the reply, progress and result."""
    traceparent: str | None = None
    """Trace and span, in the format of W3C Trace Context."""
    tracestate: str | None = None
    """Vendors' data about the trace, in the format of W3C Trace Context."""
    deadline: int | None = None
    """Time by which a request must be answered, in milliseconds since the epoch.

    Only requests have it on the wire. For other messages the deadline limits only the sending.
    """
    expires: int | None = None
    """Events and jobs: time when the message expires, in milliseconds since the epoch."""
    expiration: int | None = None
    """Requests: milliseconds that a request can wait in the queue before the broker drops it."""
    attempt: int = 1
    """Number of the attempt to handle the message, from 1."""
    error: str | None = None
    """Error replies: code of the error."""
    received: int | None = None
    """Time when the message arrived, in milliseconds since the epoch. It is never on the wire."""
    queue: str | None = None
    """Queue that delivered the message. It is never on the wire."""
    fault: str | None = None
    """Reason why the message does not follow wire format 1. It is never on the wire.

    A message with this attribute does not reach a handler. It is rejected or dead-lettered.
    """
    authorization: str | None = None
    """Requests and replies: `Bearer <service token>`. The repr hides this attribute."""
    proof: str | None = None
    """Events and jobs: signed JWT that authenticates the message. The repr hides this attribute."""
    expiry_override: str | None = None
    """Operator's signed permission to handle the message although `proof` has expired.

    The repr hides this attribute.
    """
    unread_bytes: int | None = None
    """Size of the body in bytes if the receiver has dropped the body, because it is too large.

    `body` is then empty, and `fault` has the reason. This attribute is never on the wire.
    """
    limits: CallLimits | None = None
    """Requests and jobs that this process sends: the limits that its settings have for the service.

    It is never on the wire.
    """
    cached: Literal["hit", "joined"] | None = None
    """Replies: `hit` for a kept reply, or `joined` for the reply to an equal request of this
    process.

    None if the service has replied to this request. It is never on the wire.
    """
    headers: Mapping[str, str | int] = NO_HEADERS
    """Headers that have no attribute in this class, such as `dead-*` and the user's own headers.

    Copies of the message keep these headers.
    """

    def replace(self, **changes: Any) -> "Envelope":
        """Return a copy of the message. Change the attributes in `changes`.

        Args:
            **changes: New values by attribute.
        """
        return replace(self, **changes)

    @override
    def __repr__(self) -> str:
        visible = (
            f"{name}={getattr(self, name)!r}"
            for name in self.__struct_fields__
            if name not in HIDDEN
        )
        return f"Envelope({', '.join(visible)})"


_ENCODER = msgpack.Encoder()
_DECODER = msgpack.Decoder(Envelope)


def to_stored_bytes(envelope: Envelope) -> bytes:
    """Return the bytes in which a store keeps an envelope, without the limits of the sender."""
    return _ENCODER.encode(replace(envelope, limits=None, headers=dict(envelope.headers)))


def from_stored_bytes(stored: bytes) -> Envelope:
    """Return the envelope of `to_stored_bytes`. Attributes of a later version are ignored.

    Raises:
        Undecodable: The bytes are not an envelope.
    """
    try:
        return _DECODER.decode(stored)
    except DecodeError:
        raise Undecodable("a stored message cannot be read. Restore the store's backup.") from None


class ErrorReply(Message):
    """Body of an error reply, type `bus.error.v1`."""

    code: str
    """Code of the error, such as `not_found`."""
    message: str
    """Text for the caller."""
    retryable: bool
    """True if the same message may succeed later."""
    maybe_executed: bool = False
    """True if the service may have run the request. Repeat only an idempotent request."""
    executed: str | None = None
    """`no` if no handler has begun the request or job, or `yes` if a handler has done it.

    Otherwise the member is missing, which means `maybe`.
    """
    retry_after: float | None = None
    """Seconds after which the caller may send the message again. None: the caller decides."""
    copies: int | None = None
    """Number of copies of the request that this reply answers. None: one.

    Copies that one process gets while it handles the first have one reply.
    """


class Progress(Message):
    """Body of a job's progress update, type `<type of the job>.progress`."""

    progress: float = Field(json_schema_extra={"minimum": 0, "maximum": 1})
    """Completed part of the work, from 0 to 1."""
    note: str = ""
    """Text for the submitter, at most 1024 characters."""
    error: str | None = None
    """Error code of a failed attempt, after which the job will be retried. Otherwise None."""
    number: int = 0
    """Number of the update within the job, from 1.

    A service without a durable store, or of an earlier version, sends 0. The handle of the job then
    counts the updates that it receives.
    """


new_id = uuid4_factory()
"""Function that returns an unguessable message id (a UUID with 122 random bits).

The id must be unguessable, because the bus matches a reply to its request only by this id.
"""


def reply(
    request: Envelope, message: Message | None, *, source: str, model: type[Message] | None = None
) -> Envelope:
    """Return the reply to a request, or the update with a job's result.

    The reply has the correlation id of the request. Its causation id is the id of the request.

    Args:
        request: Request or job.
        message: Reply or result. None is sent as `null`.
        source: Sending service.
        model: Class whose fields are sent. The default is the message's own class.
    """
    return _build_answer(
        request, f"{request.type}{REPLY_SUFFIX}", encode(message, model), source=source
    )


def progress_update(job: Envelope, progress: Progress, *, source: str) -> Envelope:
    """Return the update that reports a job's progress to the submitter."""
    return _build_answer(job, f"{job.type}{PROGRESS_SUFFIX}", encode(progress), source=source)


def error_reply(
    request: Envelope,
    error: BaseException,
    *,
    source: str,
    has_run: bool = True,
    is_repeated: bool = False,
    copies: int = 1,
) -> Envelope:
    """Return the error reply to a request or job.

    The error's text is sent only if the error is a `BusError` other than `Internal`, or is an
    `InvalidResult`. A group with one error is sent as this error. Another group has the code that
    all its errors have, or the code `internal`. It is retryable if one of its errors is.

    Args:
        request: Request or job.
        error: Error of the handler, or of a stage that refused the message.
        source: Sending service.
        has_run: False if certainly no handler has begun this attempt.
        is_repeated: True if a handler may have begun an earlier attempt or delivery.
        copies: Number of copies of the request that the reply answers.
    """
    executed: Executed = executed_on_wire(error, has_run=has_run)
    # A refusal, or a handler's own statement, is about this attempt only.
    is_unknown = executed == "maybe" or (executed == "no" and is_repeated)
    body = _describe_error(error, request.id, executed=None if is_unknown else executed)
    if copies > 1:
        body = body.model_copy(update={"copies": copies})
    # A member without a value is left out, so that the body stays as short as before.
    encoded = ErrorReply.__pydantic_serializer__.to_json(body, exclude_none=True)
    return _build_answer(request, ERROR_TYPE, encoded, source=source, error=body.code)


def is_final(type_: str) -> bool:
    """Return True if a reply of this type ends the request or job to which it refers.

    Other types are progress, or updates of a later version, which a client ignores.
    """
    return type_.endswith(REPLY_SUFFIX) or type_.startswith(ERROR_PREFIX)


def _describe_error(
    error: BaseException, message_id: str, *, executed: Executed | None
) -> ErrorReply:
    members = member_errors(error)
    known = [each for each in members if isinstance(each, BusError)]
    code = Internal.code
    text = f"internal error while handling {message_id}. Search the service's log for this id."
    if all(map(has_safe_text, members)):
        code, text = code_of(error), str(members[0]) if len(members) == 1 else safe_reason(error)
    return ErrorReply(
        code=code,
        message=text.encode(errors="replace").decode(),
        retryable=len(known) < len(members) or any(each.retryable for each in known),
        maybe_executed=any(each.maybe_executed for each in known),
        executed=executed,
        retry_after=retry_after_of(error),
    )


def _build_answer(
    request: Envelope, type_: str, body: bytes, *, source: str, error: str | None = None
) -> Envelope:
    return Envelope(
        id=new_id(),
        type=type_,
        role="reply" if request.role == "request" else "update",
        source=source,
        body=body,
        correlation_id=request.correlation_id or request.id,
        causation_id=request.id,
        in_reply_to=request.id,
        traceparent=request.traceparent,
        tracestate=request.tracestate,
        error=error,
    )
