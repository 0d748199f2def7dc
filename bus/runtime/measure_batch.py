"""Batches of measurements: the values of up to 100 messages are reported to the meter together.

Between two messages the code of the meter is not in the caches of the processor. So the report of a
single message would take several times as long.
"""

from collections import Counter
from collections.abc import Sequence
from threading import Lock
from typing import Final

from bus.messaging.ports.meter import Instrument, Labels, Meter

__all__ = ["MAX_SECONDS", "MAX_VALUES", "MeasureBatch"]

MAX_VALUES: Final = 100
MAX_SECONDS: Final = 1.0
"""Maximum age of a value when the next message comes. A value counts at the time of its batch."""


class MeasureBatch:
    """Counted and timed messages of one contract, which are not reported yet.

    The meter calls `report` before it is read, so no reader misses a value.
    """

    def __init__(
        self, meter: Meter, counter: Instrument, histograms: Sequence[Instrument], labels: Labels
    ) -> None:
        """Create an empty batch.

        Args:
            meter: The meter to which the values are reported.
            counter: The counter of messages.
            histograms: The histogram of durations, and one of delays if they are measured.
            labels: The labels of the histograms.
        """
        self._meter = meter
        self._counter = counter
        self._histograms = histograms
        self._labels = labels
        self._counted: list[Labels] = []
        self._seconds: list[float] = []
        self._delays: list[float] = []
        self._last = 0.0
        self._ends = 0.0
        self._lock = Lock()
        meter.report_before_read(self)

    def add(self, labels: Labels, seconds: float, now: float, delay: float | None = None) -> None:
        """Add a message.

        Args:
            labels: The labels of the counter.
            seconds: The duration.
            now: The time, in seconds since the epoch.
            delay: The delay, or None if it is not known.
        """
        if now >= self._ends or len(self._seconds) >= MAX_VALUES:
            self.report()
            self._ends = now + MAX_SECONDS
        self._last = now
        self._counted.append(labels)
        self._seconds.append(seconds)
        if delay is not None:
            self._delays.append(delay)

    def report(self) -> None:
        """Report all messages to the meter."""
        if not self._counted:
            return
        # The lock is for a snapshot in another thread. Two threads must not change one number.
        with self._lock:
            counted, self._counted = self._counted, []
            values = (self._seconds, self._delays)
            self._seconds, self._delays = [], []
            for labels, amount in Counter(counted).items():
                self._meter.count(self._counter, labels, amount, at=self._last)
            for histogram, each in zip(self._histograms, values, strict=False):
                if each:
                    self._meter.observe_many(histogram, self._labels, each, at=self._last)
