"""The values of the policies for the calls to one service. They are checked before they are set."""

from dataclasses import dataclass, field

__all__ = ["DEFAULT_POLICY", "BreakerPolicy", "CallPolicy"]


@dataclass(frozen=True, slots=True, kw_only=True)
class BreakerPolicy:
    """When a circuit breaker opens, and when it closes again. Times are in seconds."""

    failure_rate: float = 0.5
    """Share of failed calls in the window that opens the breaker, above 0 and up to 1."""
    min_calls: int = 20
    """Minimum number of calls in the window before a rate can open the breaker."""
    window: float = 10.0
    """Length of the sliding window."""
    consecutive_failures: int | None = 5
    """Number of consecutive failures that opens the breaker. None: only the rates open it."""
    slow_call: float | None = None
    """Duration from which a call counts as slow. None: no call is slow."""
    slow_rate: float = 0.5
    """Share of slow calls in the window that opens the breaker, above 0 and up to 1."""
    open_time: float = 30.0
    """Time for which the breaker stays open at first."""
    open_growth: float = 1.5
    """Factor by which the time grows after each failed probe, at least 1."""
    longest_open_time: float = 300.0
    """Maximum time for which the breaker stays open before the next probe."""
    successes: int = 2
    """Number of successful probes in a row that closes the breaker."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CallPolicy:
    """The policies for the requests to one service."""

    attempt_timeout: float | None = None
    """Maximum seconds of one attempt. None: one attempt can use the whole timeout."""
    retries: int | None = None
    """Maximum number of further attempts after an error that permits them. None: the default."""
    retry_budget: float | None = 0.2
    """Tokens that each successful call deposits. A retry or hedge takes 1. None: no budget."""
    breaker: BreakerPolicy | None = field(default_factory=BreakerPolicy)
    """None: the service has no circuit breaker."""
    max_in_flight: int | None = 1000
    """Maximum number of requests that wait for a reply at the same time. None: no limit."""
    max_waiting: int = 10_000
    """Maximum number of requests that wait until `max_in_flight` permits them."""
    hedge_after: float | None = None
    """Seconds after which a second copy of an idempotent request is sent. None: no copy is sent."""
    cache: bool = True
    """True if replies of contracts with a cache are kept."""


DEFAULT_POLICY = CallPolicy()
"""The policies of a service without values of its own."""
