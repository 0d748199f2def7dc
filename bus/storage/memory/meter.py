"""The meter in the memory of this process. Its series answer STATS and fill `/metrics`.

The number of series is bounded, so a label with too many values cannot fill the memory.
"""

import time
from collections.abc import Callable, Sequence
from math import inf
from typing import Final, TypeVar

from bus.messaging.histograms import bucket_of, buckets_of, subtract
from bus.messaging.ports.meter import Instrument, Labels, Reporter
from bus.messaging.service_info import MAX_LABEL_SETS, MAX_SECONDS, Series
from bus.storage.memory.reporters import Reporters

__all__ = ["MAX_SERIES", "OTHER", "MemoryMeter"]

MAX_SERIES: Final = MAX_LABEL_SETS
OTHER: Final = "other"
"""Value of each label of the series that all further label sets share."""
MAX_LABEL_LENGTH = 100
"""Maximum number of characters of a label's value. A longer value is cut."""
GENERATION_SECONDS: Final = 60
"""Seconds after which the values of `recent` begin to be dropped. They last up to twice as long."""
EXEMPLAR_SECONDS: Final = 10
"""Minimum age in seconds of an exemplar that a later value of the same bucket replaces."""
TRACE_ID_LENGTH = 32

Clock = Callable[[], float]


class _Number:
    """The value of a counter or a gauge, with that of the last 1 to 2 minutes.

    The recent value of a counter is the difference to an earlier value. That of a gauge is 0.
    """

    __slots__ = ("before", "last", "middle", "rotates", "value")

    def __init__(self, now: float) -> None:
        self.value: float = 0
        self.last: float = 0
        self.before: float = 0
        """The value at the begin of the previous generation."""
        self.middle: float = 0
        """The value at the begin of this generation."""
        self.rotates = now + GENERATION_SECONDS
        """The end of this generation."""

    def rotate(self, now: float) -> None:
        """Begin the next generation. If a whole generation had no value, drop both."""
        is_next = now < self.rotates + GENERATION_SECONDS
        self.before = self.middle if is_next else self.value
        self.middle = self.value
        self.rotates = now + GENERATION_SECONDS

    def fields(self, now: float) -> dict[str, object]:
        # A reader in another thread must not rotate, so this method only looks at the time.
        value = earlier = self.value
        if now < self.rotates:
            earlier = self.before
        elif now < self.rotates + GENERATION_SECONDS:
            earlier = self.middle
        recent = max(0, value - earlier)  # this process can rotate while another thread reads
        return {"value": value, "recent_value": recent, "last": int(self.last * 1000)}


class _Histogram:
    """The values of a histogram, with those of the last 1 to 2 minutes.

    An observation changes only `buckets`. The recent values are the difference to an earlier copy.
    """

    __slots__ = (
        *("before", "buckets", "earlier_max", "exemplars", "largest", "last"),
        *("latest_max", "middle", "rotates", "total"),
    )

    def __init__(self, now: float) -> None:
        self.buckets: dict[int, int] = {}
        self.total: float = 0
        self.largest: float = 0
        self.last: float = 0
        self.exemplars: dict[int, tuple[str, float, int]] = {}
        self.before: dict[int, int] = {}
        """The buckets at the begin of the previous generation."""
        self.middle: dict[int, int] = {}
        """The buckets at the begin of this generation."""
        self.earlier_max: float = 0
        """The largest value of the previous generation."""
        self.latest_max: float = 0
        """The largest value of this generation."""
        self.rotates = now + GENERATION_SECONDS
        """The end of this generation."""

    def rotate(self, now: float) -> None:
        """Begin the next generation. If a whole generation had no value, drop both."""
        is_next = now < self.rotates + GENERATION_SECONDS
        self.before = self.middle if is_next else self.buckets.copy()
        self.earlier_max = self.latest_max if is_next else 0
        self.middle, self.latest_max = self.buckets.copy(), 0
        self.rotates = now + GENERATION_SECONDS

    def add_exemplar(self, bucket: int, trace_id: str, value: float, now: float) -> None:
        known = self.exemplars.get(bucket)
        is_fresh = known is not None and now * 1000 - known[2] < EXEMPLAR_SECONDS * 1000
        if not is_fresh and len(trace_id) == TRACE_ID_LENGTH and trace_id.isalnum():
            self.exemplars[bucket] = (trace_id, value, int(now * 1000))

    def fields(self, now: float) -> dict[str, object]:
        # A reader in another thread must not rotate, so this method only looks at the time.
        buckets = self.buckets.copy()
        if now < self.rotates:
            recent, largest = self.before, max(self.earlier_max, self.latest_max)
        elif now < self.rotates + GENERATION_SECONDS:
            recent, largest = self.middle, self.latest_max
        else:
            recent, largest = buckets, 0
        return {
            "value": self.total,
            "count": sum(buckets.values()),
            "max": self.largest,
            "buckets": buckets,
            "recent": subtract(buckets, recent),
            "recent_max": largest,
            "exemplars": self.exemplars.copy(),
            "last": int(self.last * 1000),
        }


_Cell = TypeVar("_Cell", _Number, _Histogram)


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
        self._numbers: dict[Instrument, dict[Labels, _Number]] = {}
        self._reporters = Reporters()
        self._histograms: dict[Instrument, dict[Labels, _Histogram]] = {}

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
            cell = _add(self._numbers, _Number, instrument, labels, now)
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
            cell = _add(self._histograms, _Histogram, instrument, labels, now)
        if not 0 <= value <= MAX_SECONDS:
            if value != value or value == inf:  # noqa: PLR0124 - NaN
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
            cell = _add(self._numbers, _Number, instrument, labels, now)
        cell.value = cell.before = cell.middle = value
        cell.last = now

    def observe_many(
        self, instrument: Instrument, labels: Labels, values: Sequence[float], *, at: float
    ) -> None:
        """Add several durations to a histogram, which takes a third of the time for each."""
        try:
            cell = self._histograms[instrument][labels]
        except (KeyError, TypeError):
            cell = _add(self._histograms, _Histogram, instrument, labels, at)
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
