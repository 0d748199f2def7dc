"""Limits of the control channel: the memory of seen ids, and the lines about refusals.

Any client of the broker can send questions. So each of these objects has bounded memory, and none
of them has a timer.
"""

import logging
from collections import Counter
from collections.abc import Callable, Hashable

from bus.messaging.labels import one_line

__all__ = ["FLOOD", "Refusals", "SeenIds"]

log = logging.getLogger("bus.discovery")

SWEEP_SECONDS = 1.0
"""Minimum seconds between two searches for entries that are not needed any more."""
LOG_INTERVAL_SECONDS = 60.0
"""Seconds between two lines about the refusals of one asker."""
MAX_NAMED = 1000
"""Maximum number of askers for which refusals are logged apart."""
UNVERIFIED = "an unverified sender"
FLOOD = "flood"
"""Reason of a refusal without a check. It has a log line of its own, so that no other hides it."""


class SeenIds:
    """The ids of messages that were accepted, each until the message has expired.

    If the memory is full, no further id is accepted. A forgotten id could be replayed.
    """

    def __init__(self, max_ids: int, *, clock: Callable[[], float]) -> None:
        """Create an empty memory for at most `max_ids` ids. `clock` returns the wall clock."""
        self._max_ids, self._clock = max_ids, clock
        self._until: dict[Hashable, float] = {}
        self._swept = float("-inf")

    def __len__(self) -> int:
        return len(self._until)

    def __contains__(self, message_id: Hashable) -> bool:
        return message_id in self._until

    def add(self, message_id: Hashable, until: float) -> bool:
        """Remember an id until the time `until`. Return False if the memory is full."""
        now = self._clock()
        if len(self._until) >= self._max_ids and abs(now - self._swept) >= SWEEP_SECONDS:
            self._swept = now
            self._until = {each: end for each, end in self._until.items() if end > now}
        if len(self._until) >= self._max_ids:
            return False
        self._until[message_id] = until
        return True


class Refusals:
    """The refused messages: a counter by reason, and at most one log line a minute and asker."""

    def __init__(
        self, service: str, *, timer: Callable[[], float], subject: str = "a question"
    ) -> None:
        """Create the record of `service`.

        Args:
            service: Name of the service that refuses.
            timer: Returns seconds of a monotonic clock.
            subject: Kind of the refused messages, for the log.
        """
        self.counts: Counter[str] = Counter()
        """Number of refused messages by the reason."""
        self._service, self._timer, self._subject = service, timer, subject
        self._logged: dict[tuple[str, bool], tuple[float, int]] = {}
        """Time of the last line, and the number of refusals since then.

        The keys are the asker, and True for the reason `FLOOD`.
        """
        self._flooded_at = float("-inf")

    @property
    def is_flooded(self) -> bool:
        """True if a message was refused with the reason `FLOOD` in the last minute."""
        return self._timer() - self._flooded_at < LOG_INTERVAL_SECONDS

    def record(self, reason: str, detail: str, asker: str | None = None) -> None:
        """Count a refusal, and log it if the last line about the asker is a minute old.

        Args:
            reason: Short reason, one of a few.
            detail: The problem, and what to do.
            asker: Verified name of the sender. None: the sender was not verified, so its name can
                be false. All such senders share one line a minute.
        """
        self.counts[reason] += 1
        now, name = self._timer(), asker or UNVERIFIED
        is_flood = reason == FLOOD
        if is_flood:
            self._flooded_at = now
        key = (name, is_flood)
        if key not in self._logged and len(self._logged) >= MAX_NAMED:
            self._logged = {
                each: entry
                for each, entry in self._logged.items()
                if now - entry[0] < LOG_INTERVAL_SECONDS
            }
            if len(self._logged) >= MAX_NAMED:
                return
        last, unlogged = self._logged.get(key, (float("-inf"), 0))
        if now - last < LOG_INTERVAL_SECONDS:
            self._logged[key] = (last, unlogged + 1)
            return
        self._logged[key] = (now, 0)
        log.warning(
            "%s: %s of %s was refused, %s: %s%s",
            self._service,
            self._subject,
            one_line(name),
            reason,
            one_line(detail),
            f" ({unlogged} more since the last line)" if unlogged else "",
            extra={"service": self._service, "asker": name, "why": reason, "more": unlogged},
        )
