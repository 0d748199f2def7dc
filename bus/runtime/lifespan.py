"""Lifespans: the resources of a router, which exist while the router is served."""

import inspect
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from inspect import Parameter
from typing import Any

from typing_extensions import is_protocol

from bus.errors import ContractError
from bus.messaging.context import Sender
from bus.runtime.declared_parameters import declared_parameters, path_of, types_in

__all__ = ["Lifespan", "check_lifespan", "no_lifespan", "open_lifespan"]

Lifespan = (
    Callable[[], AbstractAsyncContextManager[Any]]
    | Callable[[Any], AbstractAsyncContextManager[Any]]
)
"""A function that returns an async context manager for the resources of a router.

The function takes nothing, or one parameter with the annotation `Bus` or `Sender`. The bus enters
the context manager before the first message, and exits it after the last message. In this time the
bus is connected. Handlers read the value that the context manager yields as `context.state`.
"""

VERBS = ("publish", "request", "submit")
"""The methods of `Sender`. A class with all of them can be the annotation of the bus."""


@asynccontextmanager
async def no_lifespan() -> AsyncIterator[None]:
    """Yield None: the router has no resources."""
    yield None


def check_lifespan(lifespan: Any) -> Parameter | None:
    """Return the parameter of a lifespan that receives the bus, or None.

    Raises:
        ContractError: The value is not a function that returns an async context manager, or it has
            another required parameter.
    """
    if isinstance(lifespan, AbstractAsyncContextManager) or not callable(lifespan):
        raise ContractError(
            "the lifespan of a router must be a function that returns an async context manager, "
            f"not a value of type {type(lifespan).__name__}. Pass the function, and do not call it."
        )
    path = path_of(lifespan)
    if (
        inspect.isasyncgenfunction(lifespan)
        or inspect.iscoroutinefunction(lifespan)
        or inspect.isgeneratorfunction(lifespan)
    ):
        raise ContractError(
            f"{path} does not return an async context manager. Write async def with one yield, and "
            "decorate it with @contextlib.asynccontextmanager."
        )
    parameters = declared_parameters(lifespan)
    buses = [each for each in parameters if _is_bus(each.annotation)]
    for each in parameters:
        if each.default is Parameter.empty and each not in buses[:1]:
            raise ContractError(
                f"{path}: the bus has no value for the parameter {each.name!r} of the lifespan. "
                "A lifespan takes nothing, or one parameter with the annotation Bus."
            )
    return buses[0] if buses else None


def open_lifespan(lifespan: Lifespan, bus: Sender) -> AbstractAsyncContextManager[Any]:
    """Call a lifespan, with the bus if it has a parameter for it, and return the context manager.

    Raises:
        ContractError: The lifespan has another required parameter, or returns another value.
    """
    parameter = check_lifespan(lifespan)
    function: Callable[..., Any] = lifespan
    if parameter is None:
        opened = function()
    elif parameter.kind is Parameter.POSITIONAL_ONLY:
        opened = function(bus)
    else:
        opened = function(**{parameter.name: bus})
    if not isinstance(opened, AbstractAsyncContextManager):
        raise ContractError(
            f"{path_of(lifespan)} returned a value of type {type(opened).__name__}, which is not "
            "an async context manager. Decorate it with @contextlib.asynccontextmanager."
        )
    return opened


def _is_bus(annotation: object) -> bool:
    return any(inspect.isclass(kind) and _has_verbs(kind) for kind in types_in(annotation))


def _has_verbs(kind: type) -> bool:
    """Return True for the classes of a bus, and for a protocol with a part of its methods.

    A client of HTTP has a method `request` too, so one method is enough only in a protocol.
    """
    needed = any if is_protocol(kind) else all
    return needed(hasattr(kind, verb) for verb in VERBS)
