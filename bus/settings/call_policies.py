"""The policies for the calls to one service, from its values and the defaults for all services."""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any, Final

from bus.messaging.resilience.call_policy import BreakerPolicy, CallPolicy
from bus.settings.value_rules import OFF

__all__ = ["attempt_limit", "policy_from"]

BREAKER, CACHE = "breaker", "cache"
BREAKER_FIELDS: Final = {f"{BREAKER}_{each.name}": each.name for each in fields(BreakerPolicy)}
"""Fields of a breaker's policy, by key."""
CALL_FIELDS: Final = tuple(
    each.name for each in fields(CallPolicy) if each.name not in {BREAKER, CACHE}
)


def policy_from(values: Mapping[str, Any], timeout: float) -> CallPolicy:
    """Return the policy of a service.

    A default for all services can be longer than the timeout of one service. Such a limit means
    nothing for this service, so it is left out.

    Args:
        values: The values of the service by key, completed by the defaults for all services.
        timeout: Seconds that a request to the service waits for its reply.
    """
    limit = attempt_limit(values, timeout)
    given: dict[str, Any] = {key: None if value == OFF else value for key, value in values.items()}
    for key, most in (("attempt_timeout", timeout), ("hedge_after", limit)):
        given[key] = _below(given.get(key), most)
    given["breaker_slow_call"] = _below(given.get("breaker_slow_call"), limit)
    breaker = BreakerPolicy(
        **{field: given[key] for key, field in BREAKER_FIELDS.items() if key in given}
    )
    return CallPolicy(
        **{field: given[field] for field in CALL_FIELDS if field in given},
        breaker=None if values.get(BREAKER) == OFF else breaker,
        cache=values.get(CACHE) != OFF,
    )


def attempt_limit(values: Mapping[str, Any], timeout: float) -> float:
    """Return the maximum seconds of one attempt."""
    limit = values.get("attempt_timeout")
    return timeout if limit is None or limit == OFF else min(limit, timeout)


def _below(value: float | None, limit: float) -> float | None:
    return value if value is not None and value < limit else None
