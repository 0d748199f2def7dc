"""What goes wrong below, in the bus's words: no foreign exception leaves the transport."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from aiormq.exceptions import (
    AMQPError,
    AuthenticationError,
    ChannelAccessRefused,
    ChannelNotFoundEntity,
    ChannelPreconditionFailed,
    ConnectionNotAllowed,
    ProbableAuthenticationError,
    ProtocolSyntaxError,
)

from bus.errors import (
    BusError,
    ConfigurationError,
    FailedPrecondition,
    PermissionDenied,
    TopologyMismatch,
    Unauthenticated,
    Unavailable,
)
from bus.messaging.supervision import is_own_cancel

__all__ = ["EXPECTED_ERRORS", "map_errors", "to_bus_error"]

# RuntimeError is aiormq's for "closed". It also puts a CancelledError, or a bare Exception, into what waits when it closes.
EXPECTED_ERRORS: tuple[type[BaseException], ...] = (
    OSError,
    EOFError,
    AMQPError,
    TimeoutError,
    RuntimeError,
    BusError,
)


# Which error each of the broker's refusals is, and what to do. Whatever is not in here may pass: `Unavailable`.
ERROR_MAP: tuple[tuple[tuple[type[BaseException], ...], type[BusError], str], ...] = (
    (
        (ProbableAuthenticationError, AuthenticationError),
        Unauthenticated,
        "the broker refused the credentials; check user and password in BUS_URL, or in BUS_PASSWORD_FILE",
    ),
    # RabbitMQ closes the connection instead of opening it, and aiormq calls that an unexpected frame.
    (
        (ConnectionNotAllowed, ProtocolSyntaxError),
        ConfigurationError,
        "the broker refused the virtual host; check it in BUS_URL, and this user's permissions",
    ),
    (
        (ChannelPreconditionFailed,),
        TopologyMismatch,
        "{text}; it exists with other arguments, which cannot be changed in place: `bus topology migrate` makes a queue anew",
    ),
    ((ChannelAccessRefused,), PermissionDenied, "{text}"),
    ((ChannelNotFoundEntity,), FailedPrecondition, "{text}"),
)


def to_bus_error(error: BaseException, what: str) -> BusError:
    """`error`, which happened while `what`, as an error of the bus. The broker's texts name objects, never contents."""
    if isinstance(error, BusError):
        return error
    for classes, meaning, text in ERROR_MAP:
        if isinstance(error, classes):
            return meaning(f"{what}: {text.format(text=_text(error))}")
    return Unavailable(f"{what}: {_text(error)}")


@contextmanager
def map_errors(what: str) -> Iterator[None]:
    """No foreign exception leaves the block, and no CancelledError that aiormq put into what waited when it closed."""
    try:
        yield
    except asyncio.CancelledError:
        if is_own_cancel():
            raise
        raise Unavailable(f"{what}: the connection was closed") from None
    except Exception as error:  # noqa: BLE001 - aiormq also raises a bare Exception
        raise to_bus_error(error, what) from None


def _text(error: BaseException) -> str:
    """One line: the broker's reply text, or the operating system's."""
    match error:
        case TimeoutError() if not error.args:
            return "no answer in time"
        case OSError() if error.strerror:
            return error.strerror
        case _ if not isinstance(error, EXPECTED_ERRORS):
            return type(error).__name__  # its text is not known to be safe
    shown = next((str(part) for part in reversed(error.args) if isinstance(part, str) and part), "")
    return " ".join((shown or type(error).__name__).split())
