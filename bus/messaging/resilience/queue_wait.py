"""Estimates of how long requests have waited in the queue of an overloaded handler.

A request tells when it was sent, by the clock of its sender. The clocks of two machines can differ
by seconds, so the difference to the time of arrival is not the wait. A request that found a slot
that had been free for some time has not waited. Its difference is that of the clocks, and is
subtracted from those of later requests of the same sender.

A sender can state a wrong time. So a time that contradicts the known difference decides about the
requests of this sender only, and tells nothing about the queue.
"""

from collections import OrderedDict
from math import inf
from typing import Final, NamedTuple

__all__ = ["INTERVAL_SECONDS", "MAX_SENDERS", "QueueWait"]

INTERVAL_SECONDS: Final = 0.1
"""Seconds of which the shortest wait counts, as in CoDel (Nichols and Jacobson, 2012)."""
RISE: Final = 0.1
"""Share of a longer age in the next difference of the clocks."""
MAX_SENDERS: Final = 1_000
"""Maximum number of senders with a known difference of the clocks."""


class _ClockOffset(NamedTuple):
    """The difference between the clocks of a sender and of this process."""

    seconds: float
    """Seconds by which the clock of this process is ahead."""
    least: float
    """Difference below which the sender's clock is doubtful, until its next idle moment."""

    @property
    def is_doubtful(self) -> bool:
        """True if the waits of this sender tell nothing about the queue."""
        return self.seconds < self.least


class QueueWait:
    """The waits of the requests in one queue, by monotonic seconds."""

    def __init__(self) -> None:
        """Create the waits of a queue in which no request has waited."""
        self.trusts_clocks = True
        """True if the clock of a new sender is taken as equal, as long as this is plausible."""
        self.idle_at = 0.0
        """Time of the last request that has not waited."""
        self._offsets: OrderedDict[str, _ClockOffset] = OrderedDict()
        self._began = 0.0
        self._lowest = self._earlier = 0.0
        """Shortest waits of the present and of the last interval."""

    def learn(self, sender: str, age: float, now: float) -> None:
        """Note a request that has not waited.

        Args:
            sender: Instance that sent the request.
            age: Time of arrival minus time of the send, in seconds, by two clocks.
            now: The present time.
        """
        self.idle_at = now
        known = self._offsets.get(sender)
        offset = age if known is None else known.seconds
        # A short age is exact, because a delivery can only be delayed. A clock that was set back
        # raises all ages, so the difference follows them within seconds.
        seconds = age if age < offset else offset + RISE * (age - offset)
        self._offsets[sender] = _ClockOffset(seconds, seconds - INTERVAL_SECONDS)
        self._offsets.move_to_end(sender)
        self._limit_senders()

    def _limit_senders(self) -> None:
        if len(self._offsets) > MAX_SENDERS:
            self._offsets.popitem(last=False)

    def distrust_clocks(self) -> None:
        """Take the next request of each sender as one that has not waited in the queue."""
        self.trusts_clocks = False
        self._offsets.clear()
        self._lowest = self._earlier = 0.0

    def wait_of(
        self, sender: str, age: float, inside: float, now: float, allowed: float = inf
    ) -> float:
        """Return the seconds that a request has waited, and note them.

        They are not noted if the clock of the sender is doubtful.

        Args:
            sender: Instance that sent the request.
            age: Time of arrival minus time of the send, in seconds, by two clocks.
            inside: Seconds since the arrival.
            now: The present time.
            allowed: Seconds from the send to the deadline of the request.
        """
        offset = self._offsets.get(sender)
        if offset is None:
            offset = self._offsets[sender] = self._offset_of_new(age, allowed)
            self._limit_senders()
        elif age < offset.seconds:  # no wait is negative, so the clocks have changed
            offset = self._offsets[sender] = offset._replace(seconds=age)
        waited = age - offset.seconds + inside
        if not offset.is_doubtful:
            self._note(waited, now)
        return waited

    def _offset_of_new(self, age: float, allowed: float) -> _ClockOffset:
        if not self.trusts_clocks:
            return _ClockOffset(age, -inf)
        # The broker drops a request at its deadline. So an older one shows different clocks.
        if 0 <= age <= allowed:
            return _ClockOffset(0.0, -INTERVAL_SECONDS)
        return _ClockOffset(age, inf)

    def _note(self, waited: float, now: float) -> None:
        if now < self._began + INTERVAL_SECONDS:
            self._lowest = min(self._lowest, waited)
            return
        self._earlier = 0.0 if self.idle_at >= self._began else self._lowest
        self._lowest, self._began = waited, now

    def standing(self, now: float) -> float:
        """Return the shortest wait of the last interval, in seconds. It is 0 after an idle moment.

        A burst of requests alone does not raise it, if the queue was empty in the interval.

        Args:
            now: The present time.
        """
        if now < self.idle_at + INTERVAL_SECONDS:
            return 0.0
        return min(self._lowest, self._earlier)
