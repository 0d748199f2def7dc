"""The decision which requests an overloaded handler refuses, so that others are answered in time.

Sources: Beyer et al., "Site Reliability Engineering" (2016), chapter 21; Maurer, "Fail at Scale"
(ACM Queue, 2015), whose adaptive time-outs derive from CoDel. The queue of a broker is first in,
first out. So the wait of the request at its head is the age of the queue.
"""

from collections import deque
from collections.abc import Mapping
from typing import Final, Literal

from bus.contracts.criticality import Criticality
from bus.messaging.resilience.queue_wait import QueueWait

__all__ = ["CALM_ALLOWED", "IDLE_SECONDS", "WAIT_SHARES", "LoadShedder", "ShedReason"]

ShedReason = Literal["deadline", "criticality", "age"]
"""Reason for the refusal of a request.

`deadline`: the time that remained was shorter than the handler needs. `criticality`: it had a low
criticality, and the queue was long. `age`: the queue was so old that most requests were in danger.
"""
WAIT_SHARES: Final[Mapping[Criticality, float]] = {
    "sheddable": 0.2,
    "sheddable_plus": 0.4,
    "critical": 0.8,
}
"""Share of a request's time from which its wait is too long. `critical_plus` has no such limit.

With a timeout of 10 s, a `sheddable` request is refused if it and the queue have waited for 2 s.
"""
IDLE_SECONDS: Final = 0.1
"""Seconds from which a free slot shows that the queue is empty. The next delivery takes less."""
SAMPLE_SECONDS: Final = 0.02
"""Minimum seconds between two requests of which the duration and the clocks are measured."""
CALM_SECONDS: Final = 0.01
"""Seconds after a request with a short wait, in which other requests are not checked.

The age of a queue grows by at most this time. So this saves most checks, and changes no decision.
"""
CALM_WAIT, CALM_DURATION, CALM_ALLOWED = 0.1, 0.5, 1.0
"""A wait and an expected duration that endanger no request with at least `CALM_ALLOWED` seconds."""
MAX_REFUSING_SECONDS: Final = 5.0
"""Seconds in which only refusals can follow each other. In an overload, the queue soon becomes so
short that a request is handled. So the clocks must be wrong if none is."""
MAX_DURATIONS, MIN_DURATIONS = 100, 10
"""Number of durations that are kept, and that are necessary to know how long a handler takes."""
NEW_DURATIONS: Final = 10
"""Number of durations after which the median is computed again."""


class LoadShedder:
    """The state of one endpoint. Its methods take monotonic seconds."""

    def __init__(self) -> None:
        """Create a state in which no request is refused."""
        self.queue = QueueWait()
        self.next_sample = 0.0
        """Time from which the next request is measured."""
        self.calm_until = 0.0
        """Time until which no request with at least `CALM_ALLOWED` seconds is refused."""
        self.expected: float | None = None
        """Median duration of the last requests in seconds. None: not known yet."""
        self._long = 0.0
        """Duration that nine of ten requests did not exceed, in seconds."""
        self._refusing_since: float | None = None
        """Time of the first refusal after a request that was not refused."""
        self._durations: deque[float] = deque(maxlen=MAX_DURATIONS)
        self._new = 0

    def is_sample(self, now: float) -> bool:
        """Return True if the duration of a request that starts now must be measured."""
        if now < self.next_sample:
            return False
        self.next_sample = now + SAMPLE_SECONDS
        return True

    def handled(self, seconds: float) -> None:
        """Add the duration of a request that was handled without an error."""
        self._durations.append(seconds)
        self._new += 1
        if self._new >= NEW_DURATIONS and len(self._durations) >= MIN_DURATIONS:
            self._new = 0
            durations = sorted(self._durations)
            self.expected = durations[len(durations) // 2]
            self._long = durations[len(durations) * 9 // 10]

    def refuses(
        self, waited: float, allowed: float, criticality: Criticality, now: float
    ) -> ShedReason | None:
        """Return the reason for the refusal of a request that had to wait for a slot, or None.

        Args:
            waited: Seconds that the request has waited.
            allowed: Seconds from the send to the deadline of the request.
            criticality: Criticality of the request.
            now: The present time.
        """
        reason = self._reason_for(waited, allowed, criticality, now)
        if reason is None:
            self._refusing_since = None
        elif self._refusing_since is None or self.queue.idle_at > self._refusing_since:
            self._refusing_since = now
        elif now - self._refusing_since > MAX_REFUSING_SECONDS:
            self._refusing_since = None
            self.queue.distrust_clocks()
            return None
        return reason

    def _reason_for(
        self, waited: float, allowed: float, criticality: Criticality, now: float
    ) -> ShedReason | None:
        expected = self.expected
        if waited < CALM_WAIT and (expected is None or expected < CALM_DURATION):
            self.calm_until = now + CALM_SECONDS
        # The request at the head of a full queue has hardly more time than the handler needs, and
        # most replies would be late. With a margin, the queue becomes as young as the margin.
        if expected is not None and allowed - waited < expected + min(self._long, waited / 2):
            return "deadline"
        share = WAIT_SHARES.get(criticality)
        if share is None or waited < (limit := share * allowed):
            return None
        if self.queue.standing(now) < limit:
            return None
        return "age" if criticality == "critical" else "criticality"
