"""The meter in the memory of this process. Its series answer STATS and fill `/metrics`.

The number of series is bounded, so a label with too many values cannot fill the memory.
"""

import time
from collections.abc import Callable, Sequence
from math import inf
from typing import Final, TypeVar

from bus.messaging.histograms import bucket_of, buckets_of
from bus.messaging.ports.meter import Instrument, Labels, Reporter
from bus.messaging.service_info import MAX_LABEL_SETS, MAX_SECONDS, Series
from bus.storage.memory.meter_values import Histogram, Number
from bus.storage.memory.reporters import Reporters

__all__ = ["MAX_SERIES", "OTHER", "MemoryMeter"]

MAX_SERIES: Final = MAX_LABEL_SETS
OTHER: Final = "other"
"""Value of each label of the series that all further label sets share."""
MAX_LABEL_LENGTH = 100
"""Maximum number of characters of a label's value. A longer value is cut."""

Clock = Callable[[], float]


_Cell = TypeVar("_Cell", Number, Histogram)


class MemoryMeter:
    """A `Meter` that holds all series in memory, with at most `MAX_SERIES` for an instrument.

    One event loop reports to a meter. Another thread can call `snapshot` at the same time.
    """

    def __init__(self, *, clock: Clock = time.time) -> None:
        """Create a meter without series.

        Args:
            clock: Function that returns seconds since the epoch.
        """
        self._clock = clock
        self._numbers: dict[Instrument, dict[Labels, Number]] = {}
        self._reporters = Reporters()
        self._histograms: dict[Instrument, dict[Labels, Histogram]] = {}

    def count(
        self,
        instrument: Instrument,
        labels: Labels,
        amount: int = 1,
        *,
        at: float | None = None,
    ) -> None:
        """Add `amount` to a counter."""
        now = self._clock() if at is None else at
        try:
            cell = self._numbers[instrument][labels]
        except (KeyError, TypeError):
            cell = _add(self._numbers, Number, instrument, labels, now)
        if now >= cell.rotates:
            cell.rotate(now)
        cell.value += amount
        cell.last = now

    def observe(
        self,
        instrument: Instrument,
        labels: Labels,
        value: float,
        exemplar: str | None = None,
        *,
        at: float | None = None,
    ) -> None:
        """Add a value to a histogram.

        A negative value counts as 0, and a value above `MAX_SECONDS` as `MAX_SECONDS`. NaN and
        infinity are ignored.
        """
        now = self._clock() if at is None else at
        try:
            cell = self._histograms[instrument][labels]
        except (KeyError, TypeError):
            cell = _add(self._histograms, Histogram, instrument, labels, now)
        if not 0 <= value <= MAX_SECONDS:
            if value != value or value == inf:  # noqa: PLR0124 - true for NaN only
                return
            value = 0.0 if value < 0 else MAX_SECONDS
        if now >= cell.rotates:
            cell.rotate(now)
        bucket, buckets = bucket_of(value), cell.buckets
        buckets[bucket] = buckets.get(bucket, 0) + 1
        cell.total += value
        cell.last = now
        if value > cell.latest_max:
            cell.latest_max = value
            cell.largest = max(cell.largest, value)
        if exemplar is not None:
            cell.add_exemplar(bucket, exemplar, value, now)

    def set(self, instrument: Instrument, labels: Labels, value: float) -> None:
        """Set the value of a gauge."""
        now = self._clock()
        try:
            cell = self._numbers[instrument][labels]
        except (KeyError, TypeError):
            cell = _add(self._numbers, Number, instrument, labels, now)
        cell.set(value)
        cell.last = now

    def observe_many(
        self, instrument: Instrument, labels: Labels, values: Sequence[float], *, at: float
    ) -> None:
        """Add several durations to a histogram, which takes a third of the time for each."""
        try:
            cell = self._histograms[instrument][labels]
        except (KeyError, TypeError):
            cell = _add(self._histograms, Histogram, instrument, labels, at)
        largest = max(values)
        if not 0 <= largest <= MAX_SECONDS or not min(values) >= 0:
            for value in values:
                self.observe(instrument, labels, value, at=at)
            return
        if at >= cell.rotates:
            cell.rotate(at)
        buckets = cell.buckets
        for bucket, count in buckets_of(values).items():
            buckets[bucket] = buckets.get(bucket, 0) + count
        cell.total += sum(values)
        cell.last = at
        if largest > cell.latest_max:
            cell.latest_max = largest
            cell.largest = max(cell.largest, largest)

    def report_before_read(self, reporter: Reporter) -> None:
        """Call `reporter.report()` before each snapshot, as long as the object lives."""
        self._reporters.add(reporter)

    def snapshot(self) -> tuple[Series, ...]:
        """Return a copy of all series. It can be called from any thread."""
        self._reporters.report()
        now = self._clock()
        return tuple(
            Series.model_validate(
                {
                    "name": instrument.name,
                    "labels": dict(zip(instrument.labels, labels, strict=False)),
                    **fields,
                }
            )
            for instrument, labels, fields in (
                *_fields_of(self._numbers, now),
                *_fields_of(self._histograms, now),
            )
        )


def _add(
    families: dict[Instrument, dict[Labels, _Cell]],
    kind: type[_Cell],
    instrument: Instrument,
    labels: Labels,
    now: float,
) -> _Cell:
    """Return the cell of new labels. After `MAX_SERIES` cells it is the one of `OTHER`."""
    cells = families.setdefault(instrument, {})
    key = tuple(_clean_label(value) for value in labels)
    if key == labels:
        key = labels  # a dictionary finds the same object twice as fast as an equal one
    if key not in cells and len(cells) >= MAX_SERIES:
        key = (OTHER,) * len(instrument.labels)
    cell = cells.get(key)
    if cell is None:
        cell = cells[key] = kind(now)
    return cell


def _fields_of(
    families: dict[Instrument, dict[Labels, _Cell]], now: float
) -> list[tuple[Instrument, Labels, dict[str, object]]]:
    # `list` copies the items of a dictionary without letting another thread run.
    return [
        (instrument, labels, cell.fields(now))
        for instrument, cells in list(families.items())
        for labels, cell in list(cells.items())
    ]


def _clean_label(value: object) -> str:
    """Return a label's value as a text that every encoder accepts, and cut a long value."""
    return str(value)[:MAX_LABEL_LENGTH].encode(errors="replace").decode()
