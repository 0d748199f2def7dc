"""Check of the types of the values that `@contract` takes, before the values are used."""

from collections.abc import Mapping
from typing import Any

from bus.contracts.retry_policy import RetryPolicy
from bus.errors import ContractError

__all__ = ["check_catalog", "check_class", "check_options"]

OPTIONS: Mapping[str, tuple[tuple[type, ...], str, str]] = {
    "name": ((str,), "a text", "name='<service>.<operation>'"),
    "version": ((int,), "a whole number", "version=1"),
    "permission": ((str, type(None)), "a text", "permission='read:notes'"),
    "idempotent": ((bool,), "True or False", "idempotent=True"),
    "retry": ((RetryPolicy,), "a RetryPolicy", "retry=RetryPolicy(attempts=3)"),
    "encrypted": ((bool,), "True or False", "encrypted=True"),
}
"""Types of each option, their description, and an example."""


def check_options(path: str, options: Mapping[str, Any]) -> None:
    """Raise `ContractError` if an option has a wrong type.

    A wrong type such as `encrypted="no"` or `version=True` would otherwise count as a valid value.

    Args:
        path: Module and name of the decorated class, for the error message.
        options: Values by the name of the option.
    """
    for name, value in options.items():
        types, expected, example = OPTIONS[name]
        is_wrong_bool = isinstance(value, bool) and bool not in types
        if is_wrong_bool or not isinstance(value, types):
            raise ContractError(
                f"{path}: {name} must be {expected}, not a value of type {type(value).__name__}. "
                f"Write {example}."
            )


def check_class(decorated: object) -> None:
    """Raise `ContractError` if the decorated object is not a class.

    Args:
        decorated: Object after the line with `@contract`.
    """
    if not isinstance(decorated, type):
        name = getattr(decorated, "__qualname__", None)
        shown = f"{decorated.__module__}.{name}" if name else "the decorated object"
        raise ContractError(
            f"{shown} has the type {type(decorated).__name__}, but @contract declares a class. "
            f"Write it before a class that is derived from Request, Event or Job."
        )


def check_catalog(catalog: object, expected: type, path: str) -> None:
    """Raise `ContractError` if the registry of a contract has a wrong type.

    Args:
        catalog: Registry to which the contract is added.
        expected: The class `Catalog`.
        path: Module and name of the decorated class, for the error message.
    """
    if not isinstance(catalog, expected):
        raise ContractError(
            f"{path}: catalog must be a Catalog, not a value of type {type(catalog).__name__}. "
            f"Leave out catalog=, or write catalog=Catalog()."
        )
