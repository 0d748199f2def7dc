"""Checks of the arguments with which a handler or a router is declared."""

import inspect
from typing import Any

from bus.contracts.contract import Contract, Kind, check_part, contract_of
from bus.contracts.limits import check_count
from bus.contracts.retry_policy import RetryPolicy
from bus.errors import ContractError
from bus.messaging.resilience.adaptive_limit import MAX_CONCURRENCY, AdaptiveLimit
from bus.messaging.topology.names import dead_letter_queue
from bus.runtime.declared_parameters import path_of

__all__ = [
    "check_concurrency",
    "check_retry",
    "check_subscription",
    "check_transactional",
    "contract_of_kind",
    "require_name",
]

DEAD_SUFFIX = dead_letter_queue("")[1:]
"""The last part of a dead-letter queue's name. A subscription must not have this name."""


def require_name(name: Any, what: str) -> None:
    """Check the name of a service or subscription.

    Args:
        name: The value to check.
        what: The kind of the name for the error message, such as "service".

    Raises:
        ContractError: The name is not a text, or is not valid.
    """
    if not isinstance(name, str):
        raise ContractError(
            f"the name of a {what} must be a str, not a value of type {type(name).__name__}. "
            'Write a name such as "billing".'
        )
    check_part(name, what)


def check_subscription(subscription: Any, contract: Contract) -> None:
    """Check the name of an event's subscription. None means that it has no name.

    Raises:
        ContractError: The name is not valid, or dead-letter queues use it.
    """
    if subscription is None:
        return
    require_name(subscription, "subscription")
    if subscription == DEAD_SUFFIX:
        raise ContractError(
            f"{contract.type}: the subscription cannot have the name {subscription!r}, "
            "because dead-letter queues use it. Choose another name."
        )


def check_retry(retry: Any, contract: Contract) -> RetryPolicy:
    """Return the retry policy of a handler. If `retry` is None, return that of the contract.

    Raises:
        ContractError: The value is not a `RetryPolicy`.
    """
    if retry is None:
        return contract.retry
    if not isinstance(retry, RetryPolicy):
        raise ContractError(
            f"{contract.type}: retry must be a RetryPolicy, not a value of type "
            f"{type(retry).__name__}. Write retry=RetryPolicy(attempts=3)."
        )
    return retry


def check_transactional(transactional: Any, contract: Contract) -> bool:
    """Return True if the handler is transactional.

    Raises:
        ContractError: The value is not a bool.
    """
    if not isinstance(transactional, bool):
        raise ContractError(
            f"{contract.type}: transactional must be True or False, not a value of type "
            f"{type(transactional).__name__}. Write transactional=True."
        )
    return transactional


def check_concurrency(concurrency: Any, contract: Contract) -> tuple[int, AdaptiveLimit | None]:
    """Return the first concurrency limit of a handler, and its adaptive limit, if it has one.

    Raises:
        ContractError: The value is neither an `AdaptiveLimit` nor a whole number in the range.
    """
    if isinstance(concurrency, AdaptiveLimit):
        return concurrency.first, concurrency
    count = check_count(
        concurrency, "concurrency", contract.type, most=MAX_CONCURRENCY, error=ContractError
    )
    return count, None


def contract_of_kind(model: Any, kind: Kind) -> Contract:
    """Return the contract of a class.

    Raises:
        ContractError: The value is not a class with a contract of this kind.
    """
    if not inspect.isclass(model):
        given = path_of(model) if callable(model) else f"a value of type {type(model).__name__}"
        raise ContractError(
            f"{given} is not the class of a contract. Name the class in the parentheses of the "
            f"decorator: @router.{kind}(ClassOfTheMessage)."
        )
    contract = contract_of(model)  # type: ignore[arg-type]  # `contract_of` raises for other classes
    if contract.kind != kind:
        raise ContractError(
            f"{contract.type} is a contract of kind {contract.kind}, not {kind}. "
            f"Register its handler with @router.{contract.kind}."
        )
    return contract
