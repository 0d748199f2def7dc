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

__all__ = ["TROUBLE", "translated", "translating"]

# RuntimeError is aiormq's for "closed". It also puts a CancelledError, or a bare Exception, into what waits when it closes.
TROUBLE: tuple[type[BaseException], ...] = (OSError, EOFError, AMQPError, TimeoutError, RuntimeError, BusError)


# Which error each of the broker's refusals is, and what to do. Whatever is not in here may pass: `Unavailable`.
MEANINGS: tuple[tuple[tuple[type[BaseException], ...], type[BusError], str], ...] = (
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


def translated(error: BaseException, what: str) -> BusError:
    """`error`, which happened while `what`, as an error of the bus. The broker's texts name objects, never contents."""
    if isinstance(error, BusError):
        return error
    for classes, meaning, text in MEANINGS:
        if isinstance(error, classes):
            return meaning(f"{what}: {text.format(text=_text(error))}")
    return Unavailable(f"{what}: {_text(error)}")


@contextmanager
def translating(what: str) -> Iterator[None]:
    """No foreign exception leaves the block, and no CancelledError that aiormq put into what waited when it closed."""
    try:
        yield
    except asyncio.CancelledError:
        if is_own_cancel():
            raise
        raise Unavailable(f"{what}: the connection was closed") from None
    except Exception as error:  # noqa: BLE001 - aiormq also raises a bare Exception
        raise translated(error, what) from None


def _text(error: BaseException) -> str:
    """One line: the broker's reply text, or the operating system's."""
    match error:
        case TimeoutError() if not error.args:
            return "no answer in time"
        case OSError() if error.strerror:
            return error.strerror
        case _ if not isinstance(error, TROUBLE):
            return type(error).__name__  # its text is not known to be safe
    shown = next((str(part) for part in reversed(error.args) if isinstance(part, str) and part), "")
    return " ".join((shown or type(error).__name__).split())
