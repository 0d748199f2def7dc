"""Batches of measurements: the values of up to 100 messages are reported to the meter together.

Between two messages the code of the meter is not in the caches of the processor. So the report of a
single message would take several times as long.
"""

from collections.abc import Callable
from threading import Lock
from time import perf_counter
from typing import Final

from bus.contracts.contract import Contract
from bus.messaging.instruments import SEND_SECONDS, SENT
from bus.messaging.outcomes import OK, outcome_of
from bus.messaging.ports.meter import Labels, Meter

__all__ = ["MAX_SECONDS", "MAX_VALUES", "MeasureBatch"]

MAX_VALUES: Final = 100
MAX_SECONDS: Final = 1.0
"""Maximum age of a value when the next message comes. A value counts at the time of its batch."""


class MeasureBatch:
    """Sent messages of one contract, which are not reported yet.

    The meter calls `report` before it is read, so no reader misses a value.
    """

    __slots__ = (
        *("__weakref__", "_clock", "_ends", "_labels", "_last", "_lock", "_meter"),
        *("_seconds", "_succeeded"),
    )

    def __init__(self, meter: Meter, contract: Contract, clock: Callable[[], float]) -> None:
        """Create an empty batch.

        Args:
            meter: The meter to which the values are reported.
            contract: The contract of the messages.
            clock: Function that returns seconds since the epoch.
        """
        self._meter = meter
        self._clock = clock
        self._labels: Labels = (contract.name, str(contract.version), contract.kind)
        self._succeeded: Labels = (*self._labels, OK)
        self._seconds: list[float] = []
        self._last = 0.0
        """Time of the last message, by `perf_counter`, which is read for each message anyway."""
        self._ends = 0.0
        self._lock = Lock()
        meter.report_before_read(self)

    def succeeded(self, seconds: float, now: float) -> None:
        """Add a message.

        Args:
            seconds: The duration.
            now: The time, by `perf_counter`.
        """
        if now >= self._ends or len(self._seconds) >= MAX_VALUES:
            self.report()
            self._ends = now + MAX_SECONDS
        self._seconds.append(seconds)
        self._last = now

    def failed(self, error: BaseException, seconds: float) -> None:
        """Report a message that ended with an error."""
        self.report()
        now = self._clock()
        # The lock is for a snapshot in another thread. Two threads must not change one number.
        with self._lock:
            self._meter.count(SENT, (*self._labels, outcome_of(error)), at=now)
            self._meter.observe(SEND_SECONDS, self._labels, seconds, at=now)

    def report(self) -> None:
        """Report all messages to the meter."""
        with self._lock:
            seconds, self._seconds = self._seconds, []
            if not seconds:
                return
            at = self._clock() - (perf_counter() - self._last)
            self._meter.count(SENT, self._succeeded, len(seconds), at=at)
            self._meter.observe_many(SEND_SECONDS, self._labels, seconds, at=at)
