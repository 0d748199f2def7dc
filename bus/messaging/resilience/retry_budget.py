"""The retry budget: it bounds the additional load of retries and hedges on one service.

Sources: "Retry throttling" in gRPC proposal A6, and `RetryBudget` in Twitter's Finagle. ADR 0038
has the reasons for the values.
"""

from collections.abc import Callable
from math import inf
from typing import Final

__all__ = ["RetryBudget"]

WINDOW_SECONDS: Final = 10.0
"""Length of a window. Tokens from before the last window expire."""
MIN_CAPACITY: Final = 1.0
"""Token of a new budget, and the minimum capacity. A caller with few calls can keep one token."""

ONE_TOKEN: Final = 1 - 1e-9
"""Least number of tokens for a retry. A sum of deposits such as 0.2 is not exact."""


class RetryBudget:
    """The tokens for retries and hedges to one service, in this process.

    A successful call deposits a part of a token, and each retry or hedge takes one token. So a
    service that fails gets only the retries that were saved before.

    The capacity is the deposit of the calls that succeeded in one window. Without this bound, a
    caller could save tokens for hours, and send them all while the service fails.
    """

    __slots__ = ("_capacity", "_deposit", "_ends", "_successes", "_timer", "_tokens", "denied")

    def __init__(self, deposit: float, timer: Callable[[], float]) -> None:
        """Create a budget with one token.

        Args:
            deposit: Tokens that each successful call deposits, for example 0.2.
            timer: Function that returns monotonic seconds.
        """
        self._deposit = deposit
        self._timer = timer
        self._tokens = self._capacity = MIN_CAPACITY
        self._successes = 0
        """Number of calls that succeeded in this window."""
        self._ends = -inf
        """End of this window."""
        self.denied = 0
        """Number of retries and hedges that found no token."""

    def succeeded(self) -> None:
        """Deposit for a call that has ended with success."""
        if (now := self._timer()) >= self._ends:
            self._begin_window(now)
        self._successes += 1
        tokens = self._tokens + self._deposit
        if tokens > self._capacity:
            self._capacity = max(self._capacity, self._successes * self._deposit)
            tokens = min(tokens, self._capacity)
        self._tokens = tokens

    def take(self) -> bool:
        """Take a token for a retry or a hedge. Return False if the budget has no token."""
        if (now := self._timer()) >= self._ends:
            self._begin_window(now)
        if self._tokens < ONE_TOKEN:
            self.denied += 1
            return False
        self._tokens -= 1
        return True

    @property
    def tokens(self) -> float:
        """The number of tokens now. A read changes nothing, although older tokens expire."""
        now = self._timer()
        return self._tokens if now < self._ends else min(self._tokens, self._next_capacity(now))

    def _begin_window(self, now: float) -> None:
        """Begin a window, and let older tokens expire."""
        self._capacity = self._next_capacity(now)
        self._tokens = min(self._tokens, self._capacity)
        self._successes = 0
        self._ends = now + WINDOW_SECONDS

    def _next_capacity(self, now: float) -> float:
        """Return the capacity of a window that begins now, after the end of the last one."""
        is_next = now < self._ends + WINDOW_SECONDS
        previous = self._successes if is_next else 0
        return max(MIN_CAPACITY, previous * self._deposit)
