"""The meter port: counters, histograms and gauges that parts of the bus report.

A label has few possible values. It is never an id, a payload or the text of an error.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal, Protocol

__all__ = ["NO_METER", "Instrument", "Labels", "Meter", "Reporter"]

Labels = tuple[str, ...]
"""Values of an instrument's labels, in the order of `Instrument.labels`."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Instrument:
    """One measured quantity. Two instruments are equal only if they are the same object.

    So the hash is the identity, which is fast, because each report looks up its instrument.
    """

    name: str
    """Name with dots, for example `messages.handled`."""
    kind: Literal["counter", "histogram", "gauge"]
    unit: str
    """Unit of the values: `s` for seconds, or `1` for a number of things."""
    description: str
    labels: tuple[str, ...]
    """Names of the labels."""


class Reporter(Protocol):
    """An object with values that it has not reported yet."""

    def report(self) -> None:
        """Report all values to the meter."""
        ...


class Meter(Protocol):
    """Interface to which the bus reports its measurements.

    An implementation never raises an error and never blocks. Its memory is bounded: it can combine
    further label values after a maximum number of them.
    """

    def count(
        self,
        instrument: Instrument,
        labels: Labels,
        amount: int = 1,
        *,
        at: float | None = None,
    ) -> None:
        """Add `amount`, at least 0, to a counter.

        Args:
            instrument: The counter.
            labels: The values of its labels.
            amount: The number to add.
            at: The time of the report, in seconds since the epoch. None: now.
        """
        ...

    def observe(
        self,
        instrument: Instrument,
        labels: Labels,
        value: float,
        exemplar: str | None = None,
        *,
        at: float | None = None,
    ) -> None:
        """Add one value to a histogram.

        Args:
            instrument: The histogram.
            labels: The values of its labels.
            value: The value, in the unit of the instrument.
            exemplar: The trace id of the message with this value, or None. It is not a label: a
                histogram keeps at most one exemplar for each bucket.
            at: The time of the report, in seconds since the epoch. None: now.
        """
        ...

    def set(self, instrument: Instrument, labels: Labels, value: float) -> None:
        """Set the value of a gauge."""
        ...

    def observe_many(
        self, instrument: Instrument, labels: Labels, values: Sequence[float], *, at: float
    ) -> None:
        """Add several values to a histogram. `at` is the time of the last one."""
        ...

    def report_before_read(self, reporter: Reporter) -> None:
        """Call `reporter.report()` before anything reads the meter, as long as the object lives."""
        ...


class _NoMeter:
    """A meter that ignores all reports."""

    def count(
        self,
        instrument: Instrument,
        labels: Labels,
        amount: int = 1,
        *,
        at: float | None = None,
    ) -> None:
        """Ignore the report."""

    def observe(
        self,
        instrument: Instrument,
        labels: Labels,
        value: float,
        exemplar: str | None = None,
        *,
        at: float | None = None,
    ) -> None:
        """Ignore the report."""

    def set(self, instrument: Instrument, labels: Labels, value: float) -> None:
        """Ignore the report."""

    def observe_many(
        self, instrument: Instrument, labels: Labels, values: Sequence[float], *, at: float
    ) -> None:
        """Ignore the report."""

    def report_before_read(self, reporter: Reporter) -> None:
        """Do nothing, because nothing reads this meter."""


NO_METER: Final[Meter] = _NoMeter()
"""The meter of a bus that measures nothing."""
