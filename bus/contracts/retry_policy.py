"""Retry policy: a value that contains the number of attempts and the waits between attempts.

`bus.messaging.settlement` applies the policy.
"""

from dataclasses import dataclass

from bus.errors import ConfigurationError

__all__ = ["RetryPolicy"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """Number of attempts to handle an event or job, and the waits between the attempts.

    The waits grow exponentially, or are listed in `delays`.

    >>> RetryPolicy(attempts=4, first_delay=1, factor=5)  # after 1, 5 and 25 s
    >>> RetryPolicy(delays=(5, 5, 600))  # four attempts

    Messages wait in retry tiers of 1, 5 and 30 s, 2 and 10 min, and 1 h. The bus rounds each wait
    up to the next tier. A wait of more than 1 h is shortened to 1 h. After the last attempt the
    message is dead-lettered.

    Raises:
        ConfigurationError: A value is too small.
    """

    attempts: int = 5
    """Total number of attempts. If `delays` is set, it is the number of delays plus one."""
    first_delay: float = 1
    """Seconds to wait before the second attempt."""
    factor: float = 5
    """Ratio of each wait to the previous wait."""
    longest_delay: float = 3600
    """Maximum seconds of a wait. Longer exponential waits are shortened to this value."""
    delays: tuple[float, ...] = ()
    """Seconds to wait before the second, third, … attempt.

    If it is not empty, it replaces `attempts`, `first_delay`, `factor` and `longest_delay`.
    """
    total_time: float | None = None
    """Maximum seconds from the first failure to the start of an attempt. None sets no limit."""
    permanent: tuple[type[Exception], ...] = ()
    """Errors that are never retried. A `BusError` that is not `retryable` is not retried either."""

    def __post_init__(self) -> None:
        """Derive `attempts` from `delays`, and check the values."""
        if self.delays:
            object.__setattr__(self, "attempts", len(self.delays) + 1)
        if (
            self.attempts < 1
            or self.first_delay < 0
            or self.factor < 1
            or any(delay < 0 for delay in self.delays)
        ):
            raise ConfigurationError(
                f"RetryPolicy(attempts={self.attempts}, first_delay={self.first_delay}, "
                f"factor={self.factor}, delays={self.delays}) is invalid. Set attempts and factor "
                f"to at least 1, first_delay and delays to at least 0."
            )
        if self.total_time is not None and self.total_time <= 0:
            raise ConfigurationError(
                f"RetryPolicy: total_time must be greater than 0, not {self.total_time}. "
                f"Leave it out to limit only the attempts."
            )
