"""The parameters that a handler may have, for type checkers and at run time."""

import inspect
from collections.abc import Awaitable, Callable, Collection
from typing import Any, Protocol, TypeVar, overload

from bus.errors import ContractError
from bus.messaging.context import Context

__all__ = ["Registrar", "path_of", "takes_context"]

Q = TypeVar("Q")
R = TypeVar("R")

VARIADIC = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
"""The parameter kinds of `*args` and `**kwargs`. A call can omit these parameters."""
MAX_REQUIRED_PARAMETERS = 2
"""The most parameters without a default that a handler may have: the message and the context."""


class Registrar(Protocol[Q, R]):
    """A decorator that registers a handler. The handler takes a message `Q`, and returns an `R`.

    The handler may take the context as a second parameter.
    """

    @overload
    def __call__(self, handler: Callable[[Q], Awaitable[R]], /) -> Callable[[Q], Awaitable[R]]: ...
    @overload
    def __call__(
        self, handler: Callable[[Q, Context], Awaitable[R]], /
    ) -> Callable[[Q, Context], Awaitable[R]]: ...
    def __call__(self, handler: Any, /) -> Any:
        """Register `handler`, and return it unchanged.

        Args:
            handler: A coroutine function that takes the message and, optionally, the context.

        Raises:
            ContractError: The handler is not a coroutine function, or has other required
                parameters. Or the queue already has a handler.
        """


def takes_context(function: Callable[..., Awaitable[Any]], dependencies: Collection[str]) -> bool:
    """Return True if a handler takes the context, as a second parameter without `Depends`.

    Raises:
        ContractError: The function is not a coroutine function, or does not take one or two
            positional parameters.
    """
    if not inspect.iscoroutinefunction(function) and not inspect.iscoroutinefunction(
        type(function).__call__
    ):
        raise ContractError(
            f"{path_of(function)} is not a coroutine function. Declare it with async def."
        )
    parameters = (
        p for p in inspect.signature(function).parameters.values() if p.name not in dependencies
    )
    required = [p for p in parameters if p.default is p.empty and p.kind not in VARIADIC]
    names = ", ".join(p.name for p in required)
    if not required:
        raise ContractError(
            f"{path_of(function)} has no required parameter. Declare the message as its first "
            "parameter."
        )
    if len(required) > MAX_REQUIRED_PARAMETERS:
        raise ContractError(
            f"{path_of(function)} has {len(required)} required parameters ({names}); at most 2 "
            "are allowed: the message and a context. Give each other parameter a default or "
            "Depends."
        )
    if any(p.kind is p.KEYWORD_ONLY for p in required):
        raise ContractError(
            f"{path_of(function)} has a keyword-only parameter among its required parameters "
            f"({names}). Declare the message and the context as positional parameters."
        )
    return len(required) == MAX_REQUIRED_PARAMETERS


def path_of(function: Callable[..., Any]) -> str:
    """Return the module and the qualified name of a handler, for error messages."""
    return f"{function.__module__}.{getattr(function, '__qualname__', type(function).__qualname__)}"
