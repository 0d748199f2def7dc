"""Origin of a failure that the traceback does not show.

The traceback of an error shows only code that ran when the error was raised. The bus finds some
failures after the handler has returned, before the handler is called, or in another service. For
these errors the bus notes the origin. The note has names of code, and never values.
"""

import functools
import inspect
from collections.abc import Callable
from types import CodeType
from typing import Any, NamedTuple

from bus.errors import ContractError, Internal

__all__ = [
    "PROGRAMMING_ERRORS",
    "HandlerPlace",
    "blame_handler",
    "blame_message",
    "blamed_handler",
    "has_remote_cause",
    "is_blamed_on_message",
    "mark_remote_cause",
]

PROGRAMMING_ERRORS = (Internal, ContractError)
"""Errors of the bus that only a change of the service's code can fix.

The bus raises `Internal` if a handler returns a wrong type, for example a coroutine that was not
awaited. It raises `ContractError` if a handler sends a message that it must not send.
"""
HANDLER, MESSAGE, REMOTE = "_bus_handler", "_bus_message", "_bus_remote_cause"
"""Attributes of an error. Their values are plain, so that the error can still be pickled."""
MAX_WRAPPERS = 32


class HandlerPlace(NamedTuple):
    """Place of the definition of a handler."""

    file: str
    line: int
    function: str
    module: str


def blame_handler(error: BaseException, function: Callable[..., Any]) -> None:
    """Note that a handler caused the error, although the handler has returned.

    Args:
        error: Error that the bus is about to raise.
        function: The handler, or a function that wraps the handler.
    """
    found = _find_code(function)
    if found is not None:
        code, module = found
        place = HandlerPlace(code.co_filename, code.co_firstlineno, code.co_qualname, module)
        vars(error)[HANDLER] = tuple(place)


def blame_message(error: BaseException, check: Callable[..., Any]) -> None:
    """Note that the content of a received message caused the error, and not the service's code.

    Args:
        error: Error that `check` or code of the service below it has raised.
        check: Function of the bus that reads the message. If a validator of the service raised the
            error itself, the error has no note.
    """
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    if trace is not None and trace.tb_frame.f_code is getattr(check, "__code__", None):
        vars(error)[MESSAGE] = True


def mark_remote_cause(error: BaseException) -> None:
    """Note that the cause of the error was raised in another service.

    With RabbitMQ such an error has no cause. `bus.testing` adds the cause, for the author of a
    test. The location of the error stays in the calling service.
    """
    vars(error)[REMOTE] = True


def blamed_handler(error: BaseException) -> HandlerPlace | None:
    """Return the place of the handler that caused the error, or None."""
    place = vars(error).get(HANDLER)
    return None if place is None else HandlerPlace(*place)


def is_blamed_on_message(error: BaseException) -> bool:
    """Return True if the content of a received message caused the error."""
    return MESSAGE in vars(error)


def has_remote_cause(error: BaseException) -> bool:
    """Return True if the cause of the error was raised in another service."""
    return REMOTE in vars(error)


def _find_code(function: Any) -> tuple[CodeType, str] | None:
    """Return the code of a handler and the name of its module. Look below wrappers."""
    for _ in range(MAX_WRAPPERS):
        inner = getattr(function, "__wrapped__", None)
        if inner is None and isinstance(function, functools.partial):
            inner = function.func
        if inner is None:
            break
        function = inner
    if not inspect.isroutine(function):
        function = getattr(type(function), "__call__", None)  # noqa: B004 - its code is needed
    code = getattr(function, "__code__", None)
    if not isinstance(code, CodeType):
        return None
    return code, str(getattr(function, "__module__", ""))
