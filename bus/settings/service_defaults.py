"""The values of the policies for calls, and their defaults for all services."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Final, Literal

from typing_extensions import override

from bus.errors import ConfigurationError
from bus.settings.value_rules import POLICY_RULES, ValueRule

__all__ = ["POLICY_KEYS", "CallValues", "ServiceDefaults", "check_values", "set_values_of"]

POLICY_KEYS: Final = tuple(POLICY_RULES)
"""The values that a service and the defaults for all services can have."""


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class CallValues:
    """The values of the policies for calls. A value of None is not set."""

    attempt_timeout: float | Literal["off"] | None = None
    """Maximum seconds that one attempt waits for its reply. It must be less than the timeout.

    With `off`, which is the default, one attempt can use the whole timeout.
    """
    retries: int | None = None
    """Maximum number of times that a message is sent again.

    The limit holds for a request or job after a lost connection, and for a request after an error
    that permits a retry. With 0 the message is sent once.
    """
    retry_budget: float | Literal["off"] | None = None
    """Tokens, from 0 to 1, that each successful call deposits. Default: 0.2.

    A retry or hedge takes one token, and is not sent without one. All calls of this process to the
    service share the tokens. With `off` there is no such limit.
    """
    breaker: Literal["on", "off"] | None = None
    """`off` removes the circuit breakers. The default is `on`."""
    breaker_failure_rate: float | None = None
    """Share of failed calls in the window that opens a breaker, above 0 and up to 1. Default: 0.5.
    """
    breaker_min_calls: int | None = None
    """Minimum number of calls in the window before a rate can open a breaker. Default: 20."""
    breaker_window: float | None = None
    """Seconds of the sliding window, up to 3600. Default: 10."""
    breaker_consecutive_failures: int | Literal["off"] | None = None
    """Number of consecutive failures that opens a breaker. Default: 5.

    With `off`, only the rates open it.
    """
    breaker_slow_call: float | Literal["off"] | None = None
    """Seconds from which a call counts as slow. With `off`, the default, no call is slow.

    It must be less than `attempt_timeout`, or less than the timeout if no attempt has a limit.
    """
    breaker_slow_rate: float | None = None
    """Share of slow calls in the window that opens a breaker, above 0 and up to 1. Default: 0.5."""
    breaker_open_time: float | None = None
    """Seconds for which a breaker stays open at first. Default: 30."""
    breaker_longest_open_time: float | None = None
    """Maximum seconds for which a breaker stays open before its next probe. Default: 300."""
    breaker_open_growth: float | None = None
    """Factor by which this time grows after each failed probe, from 1 to 100. Default: 1.5."""
    breaker_successes: int | None = None
    """Number of successful probes in a row that closes a breaker. Default: 2."""
    max_in_flight: int | Literal["off"] | None = None
    """Maximum number of requests to the service that wait for a reply at a time. Default: 1000."""
    max_waiting: int | None = None
    """Maximum number of requests that wait until `max_in_flight` permits them. Default: 10000."""
    hedge_after: float | Literal["off"] | None = None
    """Seconds after which a second copy of an idempotent request is sent.

    With `off`, which is the default, no copy is sent. It must be less than `attempt_timeout`, or
    less than the timeout if no attempt has a limit.
    """
    cache: Literal["on", "off"] | None = None
    """`off` keeps no reply, also not for a contract with `cache=`. The default is `on`."""

    @override
    def __repr__(self) -> str:
        """Return the values that are set, as code."""
        names = [each.name for each in fields(self)]
        names.sort(key=lambda name: name in POLICY_KEYS)  # the name of the service is first
        values = ", ".join(
            f"{name}={getattr(self, name)!r}" for name in names if getattr(self, name) is not None
        )
        return f"{type(self).__name__}({values})"


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class ServiceDefaults(CallValues):
    """Values for the calls to all services that have no value of their own.

    >>> Settings(service_defaults=ServiceDefaults(attempt_timeout=2, retries=3))

    Raises:
        ConfigurationError: A value is invalid. The error names the field.
    """

    def __post_init__(self) -> None:
        """Check every value."""
        check_values(self, POLICY_RULES, "ServiceDefaults")


def check_values(values: CallValues, rules: Mapping[str, ValueRule], subject: str) -> None:
    """Check every value that is set, and store the checked value.

    Args:
        values: Values that are being created.
        rules: The rules by key.
        subject: Text at the beginning of an error, such as `ServiceConfig('billing')`.

    Raises:
        ConfigurationError: A value is invalid.
    """
    for key, rule in rules.items():
        value = getattr(values, key)
        if value is not None:
            try:
                checked = rule.check(value)
            except ValueError as error:
                raise ConfigurationError(f"{subject}.{key}: {error}.") from None
            object.__setattr__(values, key, checked)


def set_values_of(values: CallValues) -> dict[str, Any]:
    """Return the policies' values that are set, by key."""
    return {key: value for key in POLICY_KEYS if (value := getattr(values, key)) is not None}
