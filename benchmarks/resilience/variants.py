"""The sets of policies that the simulator compares."""

from collections.abc import Mapping
from dataclasses import dataclass

from bus.messaging.resilience.call_policy import BreakerPolicy, CallPolicy

__all__ = ["VARIANTS", "Variant"]

RETRIES, ATTEMPT_SECONDS, BUDGET = 2, 1.2, 0.2
MAX_IN_FLIGHT = 1
"""Requests in flight of one process. 200 callers then hold at most one second of work."""
MAX_WAITING = 1
"""Requests of one process that wait for a permit. A longer wait would end after the deadline."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """One curve."""

    label: str
    policy: CallPolicy
    sheds: bool = False
    """True if the server sheds load."""


def policy(
    *,
    retries: int = RETRIES,
    attempt: float | None = ATTEMPT_SECONDS,
    budget: float | None = None,
    breaker: BreakerPolicy | None = None,
    in_flight: int | None = None,
) -> CallPolicy:
    """Return the policy of a caller that repeats failed requests. Other policies are off."""
    return CallPolicy(
        retries=retries,
        attempt_timeout=attempt,
        retry_budget=budget,
        breaker=breaker,
        max_in_flight=in_flight,
        max_waiting=MAX_WAITING,
    )


VARIANTS: Mapping[str, Variant] = {
    "none": Variant(label="no policy", policy=policy(retries=0, attempt=None)),
    "retries": Variant(label="retries, no budget", policy=policy()),
    "budget": Variant(label="retries, budget", policy=policy(budget=BUDGET)),
    "breaker": Variant(label="retries, breaker", policy=policy(breaker=BreakerPolicy())),
    "bulkhead": Variant(label="retries, bulkhead", policy=policy(in_flight=MAX_IN_FLIGHT)),
    "shedding": Variant(label="retries, shedding", policy=policy(), sheds=True),
    "all": Variant(
        label="all policies",
        policy=CallPolicy(retries=RETRIES, attempt_timeout=ATTEMPT_SECONDS),
        sheds=True,
    ),
}
"""The compared sets, in the order of the legend."""
