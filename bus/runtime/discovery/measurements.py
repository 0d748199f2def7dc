"""Statistics of one instance: all since its start, or those between two answers to STATS."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from bus.messaging.histograms import BOUNDS, subtract
from bus.messaging.service_info import InstanceStats, Series
from bus.runtime.discovery.live_view import LiveInstance

__all__ = ["Measurement", "Measurements", "difference"]

MIN_SECONDS: Final = 0.05
"""Minimum seconds of an interval. Rates of a shorter interval would be noise."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """Statistics of one instance."""

    stats: InstanceStats
    seconds: float | None = None
    """Duration of the interval in which the values were counted. None: since the start."""


class Measurements:
    """The last two answers to STATS of each live instance, and the difference between them."""

    def __init__(self) -> None:
        self._last: dict[tuple[str, str], tuple[float, InstanceStats]] = {}
        self._intervals: dict[tuple[str, str], Measurement] = {}

    def record(self, instances: Iterable[LiveInstance]) -> None:
        """Record the new answers of the live instances, and forget all other instances."""
        live = {each.key: each for each in instances if each.is_live}
        for known in self._last.keys() - live.keys():
            del self._last[known]
            self._intervals.pop(known, None)
        for key, instance in live.items():
            at, stats = instance.answered, instance.record
            if at is None or not isinstance(stats, InstanceStats):
                continue
            last = self._last.get(key)
            if last is None or last[1].started != stats.started:
                self._intervals.pop(key, None)
            elif at - last[0] < MIN_SECONDS:
                continue
            else:
                self._intervals[key] = difference(last[1], stats, at - last[0])
            self._last[key] = at, stats

    @property
    def totals(self) -> list[Measurement]:
        """Last statistics of each live instance, since its start."""
        return [Measurement(stats=stats) for _, stats in self._last.values()]

    @property
    def intervals(self) -> list[Measurement]:
        """Statistics of each live instance between its last two answers, if it has two."""
        return list(self._intervals.values())


def difference(before: InstanceStats, after: InstanceStats, seconds: float) -> Measurement:
    """Return the statistics between two answers of the same process.

    The recent values of the result's series are those of the interval. A series without a report in
    the interval is not in the result.

    Args:
        before: The first answer.
        after: The second answer. Its handlers are in the result.
        seconds: Time between the two answers.
    """
    known = {_identity(series): series for series in before.series}
    changed = []
    for series in after.series:
        earlier = known.get(_identity(series))
        if earlier is None or (series.value, series.count) != (earlier.value, earlier.count):
            changed.append(_subtract(earlier, series))
    return Measurement(stats=after.model_copy(update={"series": tuple(changed)}), seconds=seconds)


def _identity(series: Series) -> tuple[str, ...]:
    # A process reports the labels of an instrument always in the same order.
    return series.name, *series.labels.values()


def _subtract(before: Series | None, after: Series) -> Series:
    if before is None or after.count < before.count or after.value < before.value:
        # The series is new, or the process has reset its meter.
        before = Series(name=after.name)
    buckets = subtract(after.buckets, before.buckets)
    return after.model_copy(
        update={
            "value": after.value - before.value,
            "recent_value": after.value - before.value,
            "latest_value": after.value - before.value,
            "count": after.count - before.count,
            "buckets": buckets,
            "recent": buckets,
            "recent_max": _max_between(before, after, buckets),
        }
    )


def _max_between(before: Series, after: Series, buckets: Mapping[int, int]) -> float:
    """Return the largest value of the interval, or the upper bound of the largest one's bucket."""
    if not buckets:
        return 0
    if after.max > before.max:
        return after.max
    highest = max(buckets)
    limit = after.recent_max or after.max
    return min(BOUNDS[highest], limit) if highest < len(BOUNDS) else limit
