"""Rate limits: one token bucket for each key, in bounded memory and without a timer."""

from collections.abc import Callable, Hashable

__all__ = ["Rates"]

SWEEP_SECONDS = 1.0
"""Minimum seconds between two searches for keys that are not needed any more."""


class Rates:
    """A rate limit for each key: a token bucket.

    If the table is full, a new key is refused until another key has been idle.
    """

    def __init__(
        self, rate: float, *, burst: float, max_keys: int, timer: Callable[[], float]
    ) -> None:
        """Create the limit.

        Args:
            rate: Permitted uses per second of one key.
            burst: Permitted uses of one key at the same moment.
            max_keys: Maximum number of keys.
            timer: Returns seconds of a monotonic clock.
        """
        self._rate, self._burst, self._max_keys = rate, burst, max_keys
        self._timer = timer
        self._buckets: dict[Hashable, tuple[float, float]] = {}
        """Number of tokens, and the time of the last use, by the key."""
        self._swept = float("-inf")

    def __len__(self) -> int:
        return len(self._buckets)

    def take(self, key: Hashable) -> bool:
        """Use one token of a key. Return False if the key has no token."""
        now = self._timer()
        bucket = self._buckets.get(key)
        if bucket is None:
            if len(self._buckets) >= self._max_keys and not self._sweep(now):
                return False
            bucket = (self._burst, now)
        tokens = min(self._burst, bucket[0] + (now - bucket[1]) * self._rate)
        if tokens < 1:
            self._buckets[key] = (tokens, now)
            return False
        self._buckets[key] = (tokens - 1, now)
        return True

    def wait(self, key: Hashable) -> float:
        """Return the seconds until the key has a token. 0 if it has one now."""
        bucket = self._buckets.get(key)
        if bucket is None:
            is_full = len(self._buckets) >= self._max_keys
            return SWEEP_SECONDS if is_full else 0.0
        missing = 1 - bucket[0] - (self._timer() - bucket[1]) * self._rate
        return max(0.0, missing / self._rate)

    def _sweep(self, now: float) -> bool:
        """Remove the keys with a full bucket. Return True if there is room."""
        if now - self._swept >= SWEEP_SECONDS:
            self._swept = now
            idle_before = now - self._burst / self._rate
            self._buckets = {
                key: bucket for key, bucket in self._buckets.items() if bucket[1] > idle_before
            }
        return len(self._buckets) < self._max_keys
