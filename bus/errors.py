"""Every error that the bus raises.

    BusError
    ├── InvalidArgument        the message itself is at fault; sending it again cannot help
    │   ├── ContractError      a contract, handler or subscription is declared wrongly (raised at import)
    │   ├── ContractViolation  a payload does not fit its contract
    │   └── Undecodable        bytes from the wire that are no message of wire format 1
    ├── NotFound               what was asked for does not exist
    ├── AlreadyExists          what was to be made exists
    ├── PermissionDenied       the caller is known and has not the right
    ├── Unauthenticated        nobody knows who the caller is
    │   └── UnknownKey         what says who it is was signed with a key that is not known here, or not yet
    ├── ResourceExhausted      a limit, quota or queue is full
    ├── FailedPrecondition     the system is not in the state that this needs
    │   ├── ConfigurationError settings or topology are wrong; the message says which
    │   └── TopologyMismatch   the broker holds a queue or exchange of this name with other arguments
    ├── Aborted                a conflict with concurrent work; trying the whole again may succeed
    ├── OutOfRange             beyond the end of what there is
    ├── Unimplemented          this service does not know the operation
    ├── Cancelled              the work was called off
    ├── DeadlineExceeded       the time was up
    │   └── Expired            an event or job that lay longer than it was worth handling
    ├── Unavailable            not now; later it may work
    │   ├── NotServed          no queue takes this request or job: nobody serves its contract
    │   └── ConnectionLost     the connection went while the outcome was open
    ├── DataLoss               something that was accepted is gone or damaged
    ├── ProcessLost            each process that handled it ended before it did
    ├── Internal               a fault of the service; its text stays there
    └── Unknown                an error code that this version does not know

`code` is the gRPC canonical name (https://grpc.io/docs/guides/status-codes/), in lower case as on the wire (`process_lost` is our own);
`retryable` says whether the same message may succeed later. The text of these errors is written for the caller
and may cross the wire; the text of any other exception never does (it could hold a patient's data).
"""

from typing import ClassVar

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
    "Expired",
    "FailedPrecondition",
    "Internal",
    "InvalidArgument",
    "NotFound",
    "NotServed",
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
    "error_location",
    "safe_reason",
]


class BusError(Exception):
    """The root of the tree.

    `maybe_executed` is true where the other side may have acted although this side saw a failure: then only an
    idempotent operation may be tried again blindly.
    """

    code: ClassVar[str] = "unknown"
    retryable: ClassVar[bool] = False
    maybe_executed: bool = False  # for a class of a user's whose own `__init__` does not come here

    def __init__(self, message: str = "", *, maybe_executed: bool = False) -> None:
        super().__init__(message or self.code.replace("_", " "))
        self.maybe_executed = maybe_executed


class InvalidArgument(BusError):
    """The message itself is at fault; sending it again cannot help."""

    code = "invalid_argument"


class ContractError(InvalidArgument):
    """A contract, handler or subscription is declared wrongly; raised at import, naming both sides of a clash."""


class ContractViolation(InvalidArgument):
    """A payload does not fit its contract; the text names fields and rules, never values."""


class Undecodable(InvalidArgument):
    """Bytes from the wire that are no message of wire format 1."""


class NotFound(BusError):
    """What was asked for does not exist."""

    code = "not_found"


class AlreadyExists(BusError):
    """What was to be made exists."""

    code = "already_exists"


class PermissionDenied(BusError):
    """The caller is known and has not the right."""

    code = "permission_denied"


class Unauthenticated(BusError):
    """Nobody knows who the caller is."""

    code = "unauthenticated"


class UnknownKey(Unauthenticated):
    """What says who the sender is was signed with a key that is not known here, or not yet."""


class ResourceExhausted(BusError):
    """A limit, quota or queue is full."""

    code = "resource_exhausted"
    retryable = True


class FailedPrecondition(BusError):
    """The system is not in the state that this needs."""

    code = "failed_precondition"


class ConfigurationError(FailedPrecondition):
    """Settings or topology are wrong; the text says which and what to do."""


class TopologyMismatch(FailedPrecondition):
    """The broker holds a queue or exchange of this name with other arguments, which cannot be changed in place."""


class Aborted(BusError):
    """A conflict with concurrent work; trying the whole again may succeed."""

    code = "aborted"
    retryable = True


class OutOfRange(BusError):
    """Beyond the end of what there is."""

    code = "out_of_range"


class Unimplemented(BusError):
    """This service does not know the operation."""

    code = "unimplemented"


class Cancelled(BusError):
    """The work was called off."""

    code = "cancelled"


class DeadlineExceeded(BusError):
    """The time was up; with `maybe_executed` the outcome is unknown."""

    code = "deadline_exceeded"
    retryable = True


class Expired(DeadlineExceeded):
    """An event or job that lay longer than it was worth handling (`expires`)."""

    retryable = False


class Unavailable(BusError):
    """Not now; later it may work."""

    code = "unavailable"
    retryable = True


class NotServed(Unavailable):
    """No queue takes this request or job: nobody serves its contract in this version."""


class ConnectionLost(Unavailable):
    """The connection to the broker went while the outcome was open."""


class DataLoss(BusError):
    """Something that was accepted is gone or damaged."""

    code = "data_loss"


class ProcessLost(BusError):
    """Each process that handled it ended, or lost its connection, before it was done; it is not tried again."""

    code = "process_lost"


class Internal(BusError):
    """A fault of the service; its text stays there and only the message id crosses the wire."""

    code = "internal"
    retryable = True


class Unknown(BusError):
    """An error code that this version does not know."""


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


def error_for(code: str, message: str, *, maybe_executed: bool = False) -> BusError:
    """The error that a code from the wire stands for; `Unknown` for a code that this version does not know."""
    return CANONICAL.get(code, Unknown)(message, maybe_executed=maybe_executed)


def safe_reason(error: BaseException) -> str:
    """What may be written down of an error: the class, and the text only of ours (another's, as `Internal`'s, could hold a payload)."""
    name = type(error).__name__
    return (
        f"{name}: {error}"
        if isinstance(error, BusError) and not isinstance(error, Internal)
        else name
    )


def code_of(error: BaseException) -> str:
    """The error's code; `internal` for what is not the bus's."""
    return error.code if isinstance(error, BusError) else "internal"


def error_location(error: BaseException) -> str | None:
    """File and line of the innermost frame: enough to find the fault, and without the values that a traceback's text could show."""
    place = error.__traceback__
    while place is not None and place.tb_next is not None:
        place = place.tb_next
    return f"{place.tb_frame.f_code.co_filename}:{place.tb_lineno}" if place else None
