"""What goes wrong below, in the bus's words: no foreign exception leaves the transport."""

import asyncio

from aiormq.exceptions import (
    AMQPError,
    AuthenticationError,
    ChannelAccessRefused,
    ChannelNotFoundEntity,
    ChannelPreconditionFailed,
    ConnectionNotAllowed,
    ProbableAuthenticationError,
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

__all__ = ["TROUBLE", "is_foreign_cancel", "translated"]

# RuntimeError is aiormq's for "closed"; CancelledError is caught where it is needed, see is_foreign_cancel.
TROUBLE: tuple[type[BaseException], ...] = (OSError, EOFError, AMQPError, TimeoutError, RuntimeError, BusError)


def translated(error: BaseException, what: str) -> BusError:
    """`error`, which happened while `what`, as an error of the bus. The broker's texts name objects, never contents."""
    text = _text(error)
    match error:
        case BusError():
            return error
        case ProbableAuthenticationError() | AuthenticationError():
            return Unauthenticated(f"{what}: the broker refused the credentials; check user and password in BUS_URL")
        case ConnectionNotAllowed():
            return ConfigurationError(f"{what}: {text}; check the virtual host in BUS_URL and its permissions")
        case ChannelPreconditionFailed():
            return TopologyMismatch(f"{what}: {text}; it exists with other arguments, which cannot be changed in place")
        case ChannelAccessRefused():
            return PermissionDenied(f"{what}: {text}")
        case ChannelNotFoundEntity():
            return FailedPrecondition(f"{what}: {text}")
        case _:
            return Unavailable(f"{what}: {text}")


def _text(error: BaseException) -> str:
    """One line: the broker's reply text, or the operating system's."""
    match error:
        case TimeoutError() if not error.args:
            return "no answer in time"
        case OSError() if error.strerror:
            return error.strerror
    shown = next((str(part) for part in reversed(error.args) if isinstance(part, str) and part), "")
    return " ".join((shown or type(error).__name__).split())


def is_foreign_cancel() -> bool:
    """Whether a CancelledError was put into a future by aiormq, which does so when it closes, and not meant for this task."""
    task = asyncio.current_task()
    return task is None or not task.cancelling()
