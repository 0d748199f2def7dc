"""The time for which a circuit breaker stays open before the next probe."""

import random
from typing import Final

from bus.messaging.resilience.call_policy import BreakerPolicy

__all__ = ["JITTER", "MIN_STATED_SECONDS", "OpenTime"]

JITTER: Final = 0.2
"""Share of the open time that is added at random at most, so that processes probe at different
times. Near the longest open time, the random part is taken away instead."""
MIN_STATED_SECONDS: Final = 1.0
"""Minimum open time if the destination states when it is back."""


class OpenTime:
    """The open time. It grows while the destination does not recover, and states no time."""

    __slots__ = ("_closed_at", "_openings", "_policy")

    def __init__(self, policy: BreakerPolicy) -> None:
        """Create the open time of a breaker that has never opened."""
        self._policy = policy
        self._closed_at = float("-inf")
        self.reset()

    def reset(self) -> None:
        """Begin with the first open time again."""
        self._openings = 0

    def closed(self, now: float) -> None:
        """Note that probes have closed the breaker."""
        self._closed_at = now

    def opened(self, now: float) -> None:
        """Note that results of a closed breaker open it.

        A breaker that was closed for less than one window has not recovered, so its time still
        grows.
        """
        if now - self._closed_at >= self._policy.window:
            self.reset()

    def take(self, stated: float | None) -> float:
        """Return the seconds of the next wait, which is random.

        The wait is never shorter than the first open time, or than a shorter stated time. So it is
        not random if the policy's first open time is also the longest.

        A stated time does not grow, because the service works and knows it: a rate limit, for
        example, states the time of the next token.

        Args:
            stated: Seconds after which the destination states that it is back, or None. The
                policy's time replaces a stated time that is longer than the first open time.
        """
        policy = self._policy
        if stated is not None and stated < policy.open_time:
            seconds = min(max(stated, MIN_STATED_SECONDS), policy.open_time)
        else:
            # The exponent has a limit, because a float cannot hold any power.
            seconds = policy.open_time * policy.open_growth ** min(self._openings, 100)
            self._openings += 1
        most = min(seconds * (1 + JITTER), policy.longest_open_time)
        least = max(most / (1 + JITTER), min(seconds, policy.open_time))
        return least + (most - least) * random.random()  # noqa: S311 - it only spreads the probes
