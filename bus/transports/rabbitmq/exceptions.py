"""The mapping of aiormq's exceptions to errors of the bus.

The callers of a transport receive only errors of the bus.
"""

import asyncio
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

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

__all__ = [
    "EXPECTED_ERRORS",
    "REFUSALS",
    "closing_reason",
    "join_errors",
    "map_errors",
    "to_bus_error",
]

# aiormq raises RuntimeError if a closed channel or connection is used. When aiormq
# closes a channel or connection, pending calls end with a CancelledError or a plain Exception.
EXPECTED_ERRORS: tuple[type[BaseException], ...] = (
    OSError,
    EOFError,
    AMQPError,
    TimeoutError,
    RuntimeError,
    BusError,
)

REFUSALS = (Unauthenticated, ConfigurationError, PermissionDenied)
"""Errors of a host that another attempt to connect to this host would not change."""
CLOSED = "the connection was closed"
LIBRARY_URL = re.compile(r"amqps?://[^\s\"'>]*")
"""Pattern of a broker's URL in a library's text, which can show the virtual host and a query."""
CONNECT_FAILED = re.compile(r"\[Errno (\d{1,5})\] Connect call failed ")
"""Text of asyncio for an address to which no connection is possible. The bus names the broker."""

# Each row has three items: the exceptions for one kind of refusal, the bus error, and its text.
# An exception that is in no row becomes `Unavailable`, because its cause can be temporary.
ERROR_MAP: tuple[tuple[tuple[type[BaseException], ...], type[BusError], str], ...] = (
    (
        (ProbableAuthenticationError, AuthenticationError),
        Unauthenticated,
        (
            "the broker refused the credentials. Check the user and the password in BUS_URL, or the"
            " password in BUS_PASSWORD_FILE."
        ),
    ),
    # If RabbitMQ refuses the virtual host, it closes the connection. aiormq reports the close as an
    # unexpected frame (ProtocolSyntaxError).
    (
        (ConnectionNotAllowed, ProtocolSyntaxError),
        ConfigurationError,
        (
            "the broker refused the virtual host. Check its name in BUS_URL, and this user's"
            " permissions."
        ),
    ),
    (
        (ChannelPreconditionFailed,),
        TopologyMismatch,
        (
            "{text}. The queue or exchange exists with other arguments, which cannot be changed in"
            " place. Recreate a queue with `bus topology migrate`."
        ),
    ),
    ((ChannelAccessRefused,), PermissionDenied, "{text}"),
    ((ChannelNotFoundEntity,), FailedPrecondition, "{text}"),
)


def to_bus_error(error: BaseException, what: str) -> BusError:
    """Return the bus error for an exception.

    The error text can include a text of the broker. That text has names, but no message contents.

    Args:
        error: The exception.
        what: The operation that failed, for example "declaring". The error text begins with `what`.
    """
    if isinstance(error, BusError):
        return error
    for classes, error_class, text in ERROR_MAP:
        if isinstance(error, classes):
            return error_class(f"{what}: {text.format(text=_safe_text(error))}")
    return Unavailable(f"{what}: {_safe_text(error)}")


@contextmanager
def map_errors(what: str) -> Iterator[None]:
    """Convert each exception inside the `with` block to an error of the bus.

    When aiormq closes a channel or connection, it ends pending calls with a CancelledError. This
    CancelledError is converted. If the current task is cancelled, the CancelledError is not
    converted.

    Args:
        what: The operation in the `with` block, for example "declaring". The error text begins with
            `what`.

    Raises:
        BusError: The `with` block raised an exception.
    """
    try:
        yield
    except asyncio.CancelledError:
        if is_own_cancel():
            raise
        raise Unavailable(f"{what}: {CLOSED}") from None
    except Exception as error:  # noqa: BLE001 - aiormq also raises a plain Exception
        raise to_bus_error(error, what) from None


def join_errors(errors: Sequence[BusError]) -> BusError:
    """Return one error for the errors of several hosts.

    If every host refuses, the error has the class of the first refusal. Otherwise it is
    `Unavailable`.

    Args:
        errors: The last error of each host, at least one.
    """
    if len(errors) == 1:
        return errors[0]
    is_refused = all(isinstance(error, REFUSALS) for error in errors)
    error_class = type(errors[0]) if is_refused else Unavailable
    return error_class("; ".join(dict.fromkeys(str(error).rstrip(".") for error in errors)) + ".")


def closing_reason(closing: "asyncio.Future[Any]") -> str | None:
    """Return the reason why aiormq closed a connection, or None if it has no reason.

    Args:
        closing: The future of aiormq that is done when the connection has ended.
    """
    if not closing.done() or closing.cancelled():
        return None
    error = closing.exception()
    return None if error is None else _safe_text(error)


def _safe_text(error: BaseException) -> str:
    """Return the error text as one line. The line has no message contents."""
    match error:
        case TimeoutError() if not error.args:
            return "no answer in time"
        case OSError() if numbers := CONNECT_FAILED.findall(str(error)):
            return "; ".join(dict.fromkeys(os.strerror(int(number)) for number in numbers))
        case OSError() if error.strerror:
            return error.strerror
        case _ if type(error) is Exception and not error.args:
            return CLOSED  # aiormq ends pending calls with it when it closes a connection
        case _ if not isinstance(error, EXPECTED_ERRORS):
            return type(error).__name__  # the text of an unexpected error may contain message data
    text = next((str(part) for part in reversed(error.args) if isinstance(part, str) and part), "")
    text = LIBRARY_URL.sub("the broker", text)
    return " ".join((text or type(error).__name__).split())
