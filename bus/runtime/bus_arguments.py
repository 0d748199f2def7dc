"""Checks of the arguments of `Bus`: a wrong argument is refused before anything connects."""

from collections.abc import Mapping, Sequence
from typing import Any

from bus.errors import ConfigurationError, ContractError
from bus.runtime.router import Router
from bus.settings import Settings

__all__ = ["check_bus_arguments", "check_router"]

METHODS: Mapping[str, tuple[str, ...]] = {
    "transport": ("start", "declare", "send", "consume", "close"),
    "inbox": ("find", "add"),
    "store": ("open", "close", "beat", "transaction"),
    "until": ("wait",),
}
"""Methods that the bus calls on an argument. The argument can be an object of any class."""


def check_bus_arguments(service: Any, arguments: Mapping[str, Any]) -> None:
    """Check the arguments of `Bus`. None means that an argument was left out.

    Args:
        service: Name of the service, for the error message.
        arguments: Values by the name of the argument.

    Raises:
        ConfigurationError: An argument has a wrong type. The error names the argument.
        ContractError: `service` is not text.
    """
    if not isinstance(service, str):
        raise ContractError(
            f"{_type_of(service)} is not a valid service name. Write a text such as 'billing'."
        )
    for name, value in arguments.items():
        if value is not None:
            _check(service, name, value)


def _check(service: str, name: str, value: Any) -> None:
    if name == "settings":
        if not isinstance(value, Settings):
            _refuse(service, name, "bus.Settings", value, "Write settings=Settings(…)")
    elif name in METHODS:
        missing = [each for each in METHODS[name] if not callable(getattr(value, each, None))]
        if missing or isinstance(value, type):
            expected = f"an object with the methods {', '.join(METHODS[name])}"
            _refuse(service, name, expected, value, f"Pass such an object as {name}=")
    elif name == "clock":
        if not callable(value):
            _refuse(service, name, "a function", value, "Write clock=time.time")
    elif not isinstance(value, Sequence) or not all(map(callable, value)):
        expected = "a list of middlewares"
        _refuse(service, name, expected, value, f"Write {name}=[*bus.{name.upper()}, mine]")


def check_router(service: str, router: object) -> None:
    """Raise `ConfigurationError` if `router` is not a `Router`."""
    if not isinstance(router, Router):
        _refuse(service, "router", "a Router", router, "Pass the object that Router(…) returned")


def _refuse(service: str, argument: str, expected: str, value: object, remedy: str) -> None:
    kind = f"the class {value.__name__}" if isinstance(value, type) else _type_of(value)
    raise ConfigurationError(
        f"Bus({service!r}): {argument} must be {expected}, not {kind}. {remedy}."
    )


def _type_of(value: object) -> str:
    return f"a value of type {type(value).__name__}"
