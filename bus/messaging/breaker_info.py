"""The state of one circuit breaker, as answers of an instance contain it."""

from typing import Final, Literal

from bus.messaging.records import Count, Milliseconds, Name, Record, Seconds, Text

__all__ = ["MAX_BREAKERS", "BreakerInfo", "BreakerState"]

MAX_BREAKERS: Final = 5_000

BreakerState = Literal["closed", "open", "half-open", "isolated"]
"""State of a breaker. `isolated` is an operator's order: the breaker stays open until it ends."""


class BreakerInfo(Record):
    """One breaker of one process."""

    name: Name
    """Type of the called operation, for example `billing.quote.v1`, or name of a dependency."""
    kind: Name
    """`call`: requests that this process sends. `dependency`: messages that it consumes.

    A later version of the bus can have more kinds.
    """
    state: Name
    """One of `BreakerState`. A later version of the bus can have more states."""
    since: Milliseconds
    """Time of the last change of the state, in milliseconds since the epoch."""
    not_closed_since: Milliseconds | None = None
    """Begin of the outage: the first opening since the breaker was closed. None if it is closed.

    Failed probes do not change it.
    """
    until: Milliseconds | None = None
    """Time of the next probe, or end of the isolation. None if the breaker is closed."""
    calls: Count = 0
    """Calls in the sliding window."""
    failures: Count = 0
    """Failed calls in the sliding window."""
    slow: Count = 0
    """Slow calls in the sliding window."""
    opened: Count = 0
    """Number of times that the breaker has opened since the start of the process."""
    rejected: Count = 0
    """Number of calls that the breaker has rejected since the start of the process."""
    cause: Text | None = None
    """Cause of the last change, for example `5 consecutive failures (unavailable)`."""
    ordered_by: Name | None = None
    """Operator who has isolated or reset the breaker, if the last change was an order."""
    reason: Text | None = None
    """Reason that the operator gave."""
    wait: Seconds | None = None
    """Seconds for which the breaker stays open now, before the next probe."""
