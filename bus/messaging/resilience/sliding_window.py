"""The results of the last seconds, in a fixed number of buckets instead of a list of calls."""

from typing import Final

__all__ = ["BUCKETS", "SlidingWindow"]

BUCKETS: Final = 20
"""Number of buckets. The window forgets one of them at a time, so it is up to 5 percent shorter."""


class SlidingWindow:
    """The numbers of calls, failures and slow calls in the last seconds.

    The memory does not depend on the number of calls. Source: the time-based sliding window of
    resilience4j.
    """

    __slots__ = ("_counts", "_current", "_ends", "_number", "_older", "_width", "failures", "slow")

    def __init__(self, seconds: float, now: float) -> None:
        """Create an empty window.

        Args:
            seconds: Length of the window.
            now: Current time, in monotonic seconds.
        """
        self._width = seconds / BUCKETS
        self.clear(now)

    def clear(self, now: float) -> None:
        """Forget all results."""
        self._counts = [[0, 0, 0] for _ in range(BUCKETS)]
        self._older = self.failures = self.slow = 0
        self._begin(int(now // self._width))

    @property
    def calls(self) -> int:
        """Number of all calls. `failures` and `slow` are the numbers of two kinds of them."""
        return self._older + self._current[0]

    def succeed(self, now: float) -> None:
        """Add a call that succeeds now, and that is not slow. This is fast."""
        if now >= self._ends:
            self.advance(now)
        self._current[0] += 1

    def add(self, now: float, *, failed: bool, slow: bool) -> None:
        """Add the result of one call that ends now."""
        self.succeed(now)
        bucket = self._current
        if failed:
            bucket[1] += 1
            self.failures += 1
        if slow:
            bucket[2] += 1
            self.slow += 1

    def advance(self, now: float) -> None:
        """Forget the results that are too old."""
        number = int(now // self._width)
        if number <= self._number:
            return
        self._older += self._current[0]
        # A quiet window is empty after `BUCKETS` steps, so a long pause needs no more of them.
        for passed in range(max(self._number + 1, number - BUCKETS + 1), number + 1):
            bucket = self._counts[passed % BUCKETS]
            self._older -= bucket[0]
            self.failures -= bucket[1]
            self.slow -= bucket[2]
            bucket[:] = (0, 0, 0)
        self._begin(number)

    def counts(self, now: float) -> tuple[int, int, int]:
        """Return the calls, failures and slow calls. Change nothing, so any thread can call it."""
        first = int(now // self._width) - BUCKETS + 1
        last = self._number
        buckets = [self._counts[number % BUCKETS] for number in range(first, last + 1)]
        return (
            sum(bucket[0] for bucket in buckets),
            sum(bucket[1] for bucket in buckets),
            sum(bucket[2] for bucket in buckets),
        )

    def _begin(self, number: int) -> None:
        self._number = number
        self._current = self._counts[number % BUCKETS]
        self._ends = (number + 1) * self._width
