"""How often, for how long and after what waits something is tried again. A value: `bus.messaging.settlement` acts by it."""

from dataclasses import dataclass

from bus.errors import ConfigurationError

__all__ = ["RetryPolicy"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """How often and after what waits a failed event or job is tried again; the waits are rounded up to retry tiers.

    The waits grow exponentially, or are named one by one:

    >>> RetryPolicy(attempts=4, first_delay=1, factor=5)  # after 1, 5 and 25 s
    >>> RetryPolicy(delays=(5, 5, 600))  # after 5 s, 5 s and 10 min: four attempts
    """

    attempts: int = 5
    """Attempts in all, the first included. One more than `delays`, where those are given."""
    first_delay: float = 1
    """Seconds before the second attempt; each further wait is `factor` times longer."""
    factor: float = 5
    longest_delay: float = 3600
    """Seconds."""
    delays: tuple[float, ...] = ()
    """Seconds before the second, third… attempt, instead of all of the above."""
    total_time: float | None = None
    """Seconds since the first failure; an attempt that would begin later is not made. None: only the attempts are counted."""
    permanent: tuple[type[Exception], ...] = ()
    """Errors that trying again cannot help, beside those of the bus that say so themselves."""

    def __post_init__(self) -> None:
        """Derive `attempts` where the waits are named; `ConfigurationError` for what makes no sense."""
        if self.delays:
            object.__setattr__(self, "attempts", len(self.delays) + 1)
        if (
            self.attempts < 1
            or self.first_delay < 0
            or self.factor < 1
            or any(delay < 0 for delay in self.delays)
        ):
            raise ConfigurationError(
                "a retry policy has attempts of at least 1, first_delay and delays of at least 0 and factor of at least 1"
            )
        if self.total_time is not None and self.total_time <= 0:
            raise ConfigurationError("a retry policy has a total_time above 0, or none")
