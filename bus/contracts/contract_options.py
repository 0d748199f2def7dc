"""Check of the types of the values that `@contract` takes, before the values are used."""

from collections.abc import Mapping
from typing import Any

from bus.contracts.criticality import CRITICALITIES
from bus.contracts.limits import check_seconds
from bus.contracts.retry_policy import RetryPolicy
from bus.errors import ContractError

__all__ = ["check_cache", "check_catalog", "check_class", "check_options"]

MAX_CACHE_SECONDS = 24 * 3600
"""Maximum seconds for which a client keeps a reply."""

OPTIONS: Mapping[str, tuple[tuple[type, ...], str, str]] = {
    "name": ((str,), "a text", "name='<service>.<operation>'"),
    "version": ((int,), "a whole number", "version=1"),
    "permission": ((str, type(None)), "a text", "permission='read:notes'"),
    "idempotent": ((bool,), "True or False", "idempotent=True"),
    "retry": ((RetryPolicy,), "a RetryPolicy", "retry=RetryPolicy(attempts=3)"),
    "encrypted": ((bool,), "True or False", "encrypted=True"),
    "criticality": ((str,), "a text", "criticality='sheddable'"),
    "cache": ((int, float, type(None)), "a number of seconds", "cache=60"),
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
    _check_criticality(path, options["criticality"])


def _check_criticality(path: str, criticality: str) -> None:
    if criticality not in CRITICALITIES:
        raise ContractError(
            f"{path}: criticality must be one of {', '.join(map(repr, CRITICALITIES))}. "
            "Write criticality='sheddable', or leave out criticality=."
        )


def check_cache(path: str, seconds: float | None, kind: str, *, is_idempotent: bool) -> None:
    """Raise `ContractError` if a reply of this contract cannot be kept for `seconds`.

    A caller that gets a kept reply does not reach the handler. So only the reply may matter, which
    is the case for an idempotent request.

    Args:
        path: Module and name of the decorated class, for the error message.
        seconds: Seconds for which a client keeps a reply, or None.
        kind: Kind of the contract.
        is_idempotent: True if the contract is idempotent.
    """
    if seconds is None:
        return
    check_seconds(seconds, "cache", path, longest=MAX_CACHE_SECONDS, error=ContractError)
    if kind != "request":
        article = "an" if kind == "event" else "a"
        raise ContractError(
            f"{path} is {article} {kind}. Only the reply to a request can be kept. "
            "Leave out cache=."
        )
    if not is_idempotent:
        raise ContractError(
            f"{path}: cache is set, but the request is not idempotent. A call that gets a kept "
            "reply does not reach the handler. Add idempotent=True if the handler only reads, or "
            "leave out cache=."
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
