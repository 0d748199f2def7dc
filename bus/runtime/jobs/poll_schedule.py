"""Times at which a feed claims jobs that are due."""

from heapq import heappop, heappush
from random import uniform

__all__ = ["MAX_POLL_SECONDS", "POLL_SECONDS", "PollSchedule"]

POLL_SECONDS = 1.0
"""Seconds between two claims, if the last one has found jobs."""
MAX_POLL_SECONDS = 2.0
"""Maximum seconds between two claims of a queue that has been empty for a while."""
MAX_NOTIFIED_SECONDS = 5.0
"""As `MAX_POLL_SECONDS`, if the store reports changes by itself."""
GROWTH = 1.1
JITTER = 0.25
MAX_TIMES = 1_000
"""Maximum number of known due times. Further jobs are found by the next claim."""


class PollSchedule:
    """The next claim from one queue. Each wait is random, so processes do not claim together."""

    def __init__(self) -> None:
        self._interval = POLL_SECONDS
        self._due: list[float] = []
        self.is_notified = False
        """True if the store has reported a change of its own accord."""

    def found(self, number: int) -> None:
        """Note the number of jobs that the last claim has found."""
        longest = MAX_NOTIFIED_SECONDS if self.is_notified else MAX_POLL_SECONDS
        self._interval = POLL_SECONDS if number else min(longest, self._interval * GROWTH)

    def add(self, due: float) -> None:
        """Note that a job is due at a time, in seconds since the epoch."""
        if len(self._due) < MAX_TIMES:
            heappush(self._due, due)

    def seconds(self, now: float) -> float:
        """Return the seconds until the next claim. `now` is in seconds since the epoch."""
        wait = self._interval * uniform(1 - JITTER, 1 + JITTER)  # noqa: S311 - no secret
        while self._due and self._due[0] <= now:
            heappop(self._due)
            wait = 0.0
        return min(wait, self._due[0] - now) if self._due else wait
