"""All errors that the bus raises.

    BusError
    ├── InvalidArgument         The message is invalid. Sending it again cannot help.
    │   ├── ContractError       A contract, handler or subscription is declared wrongly.
    │   ├── ContractViolation   A payload does not match its contract.
    │   └── Undecodable         A message from the wire does not follow wire format 1.
    ├── NotFound                The requested object does not exist.
    ├── AlreadyExists           The object to create exists already.
    ├── PermissionDenied        The sender is authenticated, but not authorized.
    ├── Unauthenticated         The sender cannot be authenticated.
    │   └── UnknownKey          The receiver does not know the signing key, or does not know it yet.
    ├── ResourceExhausted       A limit or quota is reached, or a queue is full.
    ├── FailedPrecondition      The system is not in the required state.
    │   ├── ConfigurationError  Settings or topology are wrong.
    │   └── TopologyMismatch    A queue or exchange exists with different arguments.
    ├── Aborted                 Concurrent work caused a conflict.
    ├── OutOfRange              A value is beyond the valid range.
    ├── Unimplemented           The service does not implement the operation.
    ├── Cancelled               The work was cancelled.
    ├── DeadlineExceeded        The time limit passed.
    │   └── Expired             An event or job was not handled before it expired.
    ├── Unavailable             The operation is not possible now, but may be possible later.
    │   ├── NotServed           No queue accepts the request or job.
    │   └── ConnectionLost      The connection was lost before the outcome was known.
    ├── DataLoss                Accepted data is lost or damaged.
    ├── ProcessLost             Each process that handled the message ended or disconnected.
    ├── Internal                The service failed. The caller receives only the message id.
    │   └── InvalidResult       The handler's result does not match its contract.
    └── Unknown                 This version of the bus does not know the error code.

`code` is the gRPC canonical name (https://grpc.io/docs/guides/status-codes/) in lower case, as on
the wire. Only the code `process_lost` is not from gRPC. `retryable` is true if the same message may
succeed later.

If `request`, `publish`, `submit` or a job handle raises an error, its text begins with the type of
the message. `detail` is the text without the type.

The error message of a `BusError` is written for the caller, and can cross the wire. The message of
`Internal` or of another exception never crosses the wire, because it could contain confidential
data. `InvalidResult` is an `Internal` whose message can cross the wire.
"""

from functools import cached_property
from typing import ClassVar, Literal

__all__ = [
    "Aborted",
    "AlreadyExists",
    "BusError",
    "Cancelled",
    "ConfigurationError",
    "ConnectionLost",
    "ContractError",
    "ContractViolation",
    "DataLoss",
    "DeadlineExceeded",
    "Executed",
    "Expired",
    "FailedPrecondition",
    "Internal",
    "InvalidArgument",
    "InvalidResult",
    "NotFound",
    "NotServed",
    "Origin",
    "OutOfRange",
    "PermissionDenied",
    "ProcessLost",
    "ResourceExhausted",
    "TopologyMismatch",
    "Unauthenticated",
    "Unavailable",
    "Undecodable",
    "Unimplemented",
    "Unknown",
    "UnknownKey",
    "code_of",
    "error_for",
    "error_name",
    "executed_of",
    "has_safe_text",
    "member_errors",
    "safe_reason",
]


Executed = Literal["no", "maybe", "yes"]
"""State of an operation that failed: whether the called service has begun or done it."""
Origin = Literal["local", "broker", "service"]
"""Place of a failure: this process, the broker, or the called service."""


class _ExecutedView:
    """The attribute `BusError.executed`.

    It is not a property, because the class of an application can set an attribute of this name.
    """

    def __get__(self, error: "BusError | None", _owner: "type[BusError]") -> Executed:
        """Return the value for an error. Return `maybe` for a class."""
        return "maybe" if error is None else executed_of(error)


class BusError(Exception):
    """The base class of all errors of the bus.

    Catch it to catch every error of the bus. A handler may raise any subclass. The caller receives
    the error as the class of its `code`.

    Args:
        message: Text for the caller. The default is the code as words. The bus can send the text
            over the wire, so it must not contain confidential data.
        maybe_executed: True if the outcome is in doubt: the peer may have done the whole operation
            in spite of the error.
        executed: `no` if no handler has begun the operation, `yes` if a handler has done it, or
            `maybe`. A handler that raises the error with `executed="no"` states that it has done
            nothing. None: `executed_of` derives the value.
        retry_after: Seconds after which the caller may try again. None: the caller decides.
    """

    code: ClassVar[str] = "unknown"
    """The gRPC canonical name in lower case, as on the wire."""
    retryable: ClassVar[bool] = False
    """True if the same message may succeed later."""
    # Default for user-defined subclasses that do not call `BusError.__init__`.
    maybe_executed: bool = False
    """True if the outcome is in doubt: the peer may have done the whole operation.

    False does not mean that a second run is safe. If a handler raised the error, the handler may
    have acted before. Repeat a request only if its contract is idempotent, or if the error shows
    that no handler ran: `NotServed` with `maybe_executed` false.
    """

    origin: Origin = "local"
    """Place of the failure.

    `local` is this process, `broker` is the connection or the broker, and `service` is the called
    service. Only errors of `service` count against the service.
    """
    retry_after: float | None = None
    """Seconds after which the caller may try again. None: the caller decides."""
    executed = _ExecutedView()
    """State of the operation: `no`, `maybe` or `yes`.

    `no` means that no handler has begun the operation, or that its handler has done nothing. It is
    safe to send the request again. `yes` means that a handler has done the operation.
    """
    stated_executed: Executed | None = None
    """The value of `executed` that was stated when the error was raised. None: it is derived."""
    is_call_error: bool = False
    """True if a call of the bus in this process has raised the error.

    A handler that passes the error on states nothing about its own work.
    """
    was_broker_silent: bool = False
    """True if an attempt of a request timed out while the broker answered nothing at all."""
    answered_copies: int = 1
    """Number of copies of a hedged request that the service has answered with this error."""
    had_full_time: bool = False
    """True if an attempt of a request failed only after its configured time.

    The time is the setting `attempt_timeout` of the service, or else its timeout. False if the
    caller or an inherited deadline had left less time.
    """

    def __init__(
        self,
        message: str = "",
        *,
        maybe_executed: bool = False,
        executed: Executed | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message or self.code.replace("_", " "))
        # A tuple, because a user's value may have no hash.
        self.maybe_executed = True if executed in ("maybe", "yes") else maybe_executed
        if executed is not None:
            self.stated_executed = executed
        if retry_after is not None:
            self.retry_after = retry_after

    # Not a property: a user's subclass may set an attribute of this name.
    @cached_property
    def detail(self) -> str:
        """Text of the error without its message, as the handler or the bus wrote it.

        `str(error)` begins with the type of the message: `billing.quote.v1: no such customer`. Show
        `detail` to users of an application, here `no such customer`.
        """
        return str(self)


class InvalidArgument(BusError):
    """An invalid message. Sending it again cannot help."""

    code = "invalid_argument"


class ContractError(InvalidArgument):
    """A wrong declaration of a contract, handler or subscription. It is raised at import.

    A contract can use a name that is not defined at import. In that case the error is raised when a
    service starts to serve the contract, or when its first message is sent.

    If two declarations conflict, the error message names the two declarations. `request`, `publish`
    and `submit` raise this error for a message of the wrong kind. `publish` also raises this error
    for an event that belongs to another service.
    """


class ContractViolation(InvalidArgument):
    """A payload that does not match its contract, or that cannot be sent without a loss.

    The error message names fields and rules, but never shows values.
    """


class Undecodable(InvalidArgument):
    """A message from the wire that does not follow wire format 1."""


class NotFound(BusError):
    """A requested object that does not exist."""

    code = "not_found"


class AlreadyExists(BusError):
    """An object that exists already and cannot be created again."""

    code = "already_exists"


class PermissionDenied(BusError):
    """An authenticated sender that is not authorized for the operation."""

    code = "permission_denied"


class Unauthenticated(BusError):
    """A sender that cannot be authenticated."""

    code = "unauthenticated"


class UnknownKey(Unauthenticated):
    """A token or proof signed with a key that the receiver does not know, or does not know yet."""


class ResourceExhausted(BusError):
    """A limit or quota that is reached, or a queue that is full."""

    code = "resource_exhausted"
    retryable = True


class FailedPrecondition(BusError):
    """A system that is not in the state that the operation requires."""

    code = "failed_precondition"


class ConfigurationError(FailedPrecondition):
    """Wrong settings or a wrong topology. The message names the cause and the remedy."""


class TopologyMismatch(FailedPrecondition):
    """A queue or exchange that exists at the broker with different arguments.

    RabbitMQ cannot change the arguments of an existing queue or exchange.
    """


class Aborted(BusError):
    """A conflict with concurrent work. A retry of the complete operation may succeed."""

    code = "aborted"
    retryable = True


class OutOfRange(BusError):
    """A value or position beyond the valid range."""

    code = "out_of_range"


class Unimplemented(BusError):
    """An operation that this service does not implement."""

    code = "unimplemented"


class Cancelled(BusError):
    """Work that was cancelled."""

    code = "cancelled"


class DeadlineExceeded(BusError):
    """Work that did not end within its time limit.

    The outcome is unknown if `maybe_executed` is true.
    """

    code = "deadline_exceeded"
    retryable = True


class Expired(DeadlineExceeded):
    """An event or job that was not handled before its expiry time (`expires`)."""

    retryable = False


class Unavailable(BusError):
    """An operation that is not possible now, but may be possible later.

    If the caller's own bus raises exactly this class, and `maybe_executed` is false, the message
    was certainly not sent. A handler can raise this class, too. It then arrives in the same form,
    and the handler may have acted before.
    """

    code = "unavailable"
    retryable = True


class NotServed(Unavailable):
    """A request or job that no queue accepts.

    No service serves this version of its contract. The queue of a request exists until a minute
    after the last worker stopped. A handler's `NotServed` arrives as `Unavailable`. So if
    `maybe_executed` is false at a caller, no handler ran.
    """

    # The broker answers at once and for certain, so the answer does not count against the service.
    origin: Origin = "broker"


class ConnectionLost(Unavailable):
    """A connection to the broker that was lost before the outcome was known."""

    origin: Origin = "broker"


class DataLoss(BusError):
    """Accepted data that is lost or damaged."""

    code = "data_loss"


class ProcessLost(BusError):
    """A message that was never settled: each worker that handled it ended or lost its connection.

    The bus does not retry the message.
    """

    code = "process_lost"


class Internal(BusError):
    """A failure of the service.

    The error message stays in the service. Only the id of the handled message crosses the wire. The
    handler may have acted before it failed, although `maybe_executed` is false.
    """

    code = "internal"
    retryable = True


class InvalidResult(Internal):
    """A handler's result that does not match the contract: a programming error of the service.

    The bus never retries the message, because the handler has done its work. The error message
    names types and fields, and crosses the wire. The caller receives `Internal`, and its
    `retryable` is false.
    """

    retryable = False


class Unknown(BusError):
    """An error code that this version of the bus does not know."""


MAX_MEMBERS_SHOWN = 3
"""Maximum number of errors in the description of an exception group."""
CANONICAL: dict[str, type[BusError]] = {
    error.code: error
    for error in (
        InvalidArgument,
        NotFound,
        AlreadyExists,
        PermissionDenied,
        Unauthenticated,
        ResourceExhausted,
        FailedPrecondition,
        Aborted,
        OutOfRange,
        Unimplemented,
        Cancelled,
        DeadlineExceeded,
        Unavailable,
        DataLoss,
        ProcessLost,
        Internal,
        Unknown,
    )
}


MAX_CODE_LENGTH = 40
"""Maximum number of characters of an unknown code that an error message shows."""


def error_for(
    code: str, message: str, *, maybe_executed: bool = False, retryable: bool | None = None
) -> BusError:
    """Return an error of the class that has this code. Return `Unknown` for an unknown code.

    The text of such an `Unknown` ends with the code.

    Args:
        code: Code of the error.
        message: Text of the error.
        maybe_executed: True if the peer may have done the whole operation.
        retryable: True if the same message may succeed later. None keeps the value of the class.
    """
    kind = CANONICAL.get(code)
    if kind is None:
        kind, message = Unknown, f"{message} (unknown error code {code[:MAX_CODE_LENGTH]!r})"
    error = kind(message, maybe_executed=maybe_executed)
    if retryable is not None:
        # The sender knows its own class of the error, such as `Expired`. The code does not tell it.
        vars(error)["retryable"] = retryable
    return error


def executed_of(error: BusError) -> Executed:
    """Return whether the called service has begun or done the operation that failed.

    An error of the service is `maybe` unless the service has stated another value, because its
    handler may have acted before. Another error is `maybe` if it has `maybe_executed`, else `no`.
    """
    stated = error.stated_executed
    if stated is not None and not (stated == "no" and error.maybe_executed):
        return stated
    return "maybe" if error.maybe_executed or error.origin == "service" else "no"


def has_safe_text(error: BaseException) -> bool:
    """Return True if the error's text is written for the caller, and contains no payload."""
    return isinstance(error, BusError) and (
        isinstance(error, InvalidResult) or not isinstance(error, Internal)
    )


def member_errors(error: BaseException) -> tuple[BaseException, ...]:
    """Return the errors in an exception group and in its nested groups, in order.

    For an error that is not a group, return only the error itself.
    """
    members: list[BaseException] = []
    pending = [error]
    while pending:
        each = pending.pop()
        if isinstance(each, BaseExceptionGroup):
            pending.extend(reversed(each.exceptions))
        else:
            members.append(each)
    return tuple(members)


def safe_reason(error: BaseException) -> str:
    """Return a description of an error. The description is safe to log and to store.

    The description is the name of the error's class. If the error's text contains no payload, the
    text follows. The text of an error of another library could contain a payload. A group with one
    error is described as this error. For another group, the descriptions of its errors follow.
    """
    members = member_errors(error)
    texts = [_describe(each) for each in members[:MAX_MEMBERS_SHOWN]]
    if len(members) == 1:
        return texts[0]
    more = len(members) - len(texts)
    shown = "; ".join(texts) + (f"; and {more} more" if more else "")
    return f"{type(error).__name__} of {len(members)} errors: {shown}"


def _describe(error: BaseException) -> str:
    name = type(error).__name__
    return f"{name}: {error}" if has_safe_text(error) else name


def error_name(error: BaseException) -> str:
    """Return the name of an error's class. For a group with one error, name this error's class."""
    members = member_errors(error)
    return type(members[0] if len(members) == 1 else error).__name__


def code_of(error: BaseException) -> str:
    """Return the code of a `BusError`. Return `internal` for an error that is not a `BusError`.

    The code of a group is the code that all its errors have. If they differ, return `internal`.
    """
    codes = {
        each.code if isinstance(each, BusError) else Internal.code for each in member_errors(error)
    }
    return codes.pop() if len(codes) == 1 else Internal.code
