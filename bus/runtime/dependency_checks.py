"""Checks of the dependency and the rate limit with which a handler is declared."""

from collections.abc import Iterable
from typing import Any

from bus.errors import ContractError
from bus.messaging.resilience.dependency import Dependency
from bus.messaging.resilience.rate_limit import RateLimit

__all__ = ["check_dependency", "check_rate", "check_same_dependency"]


def check_dependency(dependency: Any, failures: Any, subject: str) -> Dependency | None:
    """Return the dependency of a handler.

    Args:
        dependency: Name of the dependency, a `Dependency`, or None.
        failures: Classes of the errors that show that the dependency is down. None if `dependency`
            is a `Dependency`.
        subject: Type of the message, for the error message.

    Raises:
        ContractError: A value is missing or not valid. The error names the parameter.
    """
    if dependency is None:
        if failures is None:
            return None
        raise ContractError(
            f"{subject}: failures requires dependency. Name the dependency that fails with these "
            'errors, such as dependency="ehr", or leave failures out.'
        )
    if isinstance(dependency, Dependency):
        if failures is None:
            return dependency
        raise ContractError(
            f"{subject}: failures cannot be given beside a Dependency, which has its own. Write "
            "Dependency(name=…, failures=…), and leave the parameter failures out."
        )
    if failures is None:
        raise ContractError(
            f"{subject}: dependency requires failures. Name the errors that the handler raises if "
            "the dependency is down, such as failures=(ConnectionError,)."
        )
    try:
        return Dependency(name=dependency, failures=failures)
    except ContractError as error:
        raise ContractError(f"{subject}: {error}") from None


def check_rate(rate: Any, subject: str) -> RateLimit | None:
    """Return the rate limit of a handler.

    Raises:
        ContractError: The value is not a `RateLimit`.
    """
    if rate is None or isinstance(rate, RateLimit):
        return rate
    raise ContractError(
        f"{subject}: rate must be a RateLimit, not a value of type {type(rate).__name__}. Write "
        "rate=RateLimit(100, per=1.0)."
    )


def check_same_dependency(
    dependency: Dependency | None, others: Iterable[Dependency | None], subject: str
) -> None:
    """Check that all handlers give a dependency the same values, because they share a breaker.

    Raises:
        ContractError: Another handler names the dependency with other values. The error names the
            first value that differs.
    """
    for other in others:
        if dependency is None or other is None or other.name != dependency.name:
            continue
        if other != dependency:
            names = ("failures", "consecutive_failures", "probe_interval")
            differs = next(
                name for name in names if getattr(other, name) != getattr(dependency, name)
            )
            raise ContractError(
                f"{subject}: the dependency {dependency.name!r} has another value of {differs} in "
                "another handler of this service. Write one Dependency, and pass it to both."
            )
