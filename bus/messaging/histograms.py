"""Histograms with fixed buckets, from 0.1 ms to 10,000 s.

The upper bounds of the buckets are preferred numbers, ten in each decade. So a quantile that is
computed from the buckets differs from the true value by at most 28 %. A histogram is sparse: a
mapping from the index of a bucket to the number of its values.

Source: ISO 3, "Preferred numbers", the rounded series R"10.
"""

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Mapping
from functools import partial
from itertools import accumulate
from math import inf
from typing import Final

__all__ = [
    "BOUNDS",
    "EXPOSED_BOUNDS",
    "Buckets",
    "bucket_of",
    "buckets_of",
    "count_of",
    "cumulative_counts",
    "merge",
    "quantile",
    "subtract",
]

Buckets = Mapping[int, int]
"""Number of values in each bucket that is not empty, by the bucket's index."""

_FIRST_DECADE, _LAST_DECADE = -4, 4
"""Powers of ten of the lowest and the highest bound, in seconds."""
_PREFERRED = ("1", "1.25", "1.6", "2", "2.5", "3.15", "4", "5", "6.3", "8")
_EXPOSED = ("1", "2.5", "5")


def _bounds(steps: tuple[str, ...]) -> tuple[float, ...]:
    decades = range(_FIRST_DECADE, _LAST_DECADE)
    # A text as the source gives the float that is nearest to the decimal number.
    within = [float(f"{step}e{decade}") for decade in decades for step in steps]
    return (*within, float(f"1e{_LAST_DECADE}"))


BOUNDS: Final = _bounds(_PREFERRED)
"""Upper bound of each bucket, in seconds. A bucket includes its bound.

One more bucket, with the index `len(BOUNDS)`, has all larger values.
"""
EXPOSED_BOUNDS: Final = _bounds(_EXPOSED)
"""Bounds that monitoring systems receive: 1, 2.5 and 5 of each decade. All are in `BOUNDS`."""
_bucket_of = partial(bisect_left, BOUNDS)
_EXPOSED_INDEXES = tuple(BOUNDS.index(bound) for bound in EXPOSED_BOUNDS)


def bucket_of(value: float) -> int:
    """Return the index of the bucket of a value, in seconds. A negative value is in bucket 0."""
    return bisect_left(BOUNDS, value)


def buckets_of(values: Iterable[float]) -> Counter[int]:
    """Return the histogram of values, in seconds."""
    return Counter(map(_bucket_of, values))  # without a call of a Python function for each value


def count_of(buckets: Buckets) -> int:
    """Return the number of values in a histogram."""
    return sum(buckets.values())


def quantile(buckets: Buckets, q: float, largest: float = inf) -> float | None:
    """Return the value below which a part of all values are.

    Inside of a bucket the result is interpolated linearly, as Prometheus does. It is in the bucket
    of the true value.

    Args:
        buckets: The histogram.
        q: The part, from 0 to 1: 0.5 for the median.
        largest: The largest value in the histogram (`Series.max`), which limits the result.

    Returns:
        The value in seconds, or None if the histogram is empty.
    """
    total = count_of(buckets)
    if total <= 0:
        return None
    rank, before = q * total, 0
    for index in sorted(buckets):
        count = buckets[index]
        if count > 0 and before + count >= rank:
            lower, upper = _range_of(index, largest)
            part = (rank - before) / count
            return min(lower + (upper - lower) * part, largest)
        before += count
    # Only the rounding of `q * total` can end the loop without a bucket.
    return min(_range_of(max(buckets), largest)[1], largest)


def _range_of(index: int, largest: float) -> tuple[float, float]:
    """Return the lower and the upper bound of a bucket."""
    if index >= len(BOUNDS):
        return BOUNDS[-1], largest if BOUNDS[-1] < largest < inf else BOUNDS[-1]
    return (BOUNDS[index - 1] if index > 0 else 0.0), BOUNDS[max(index, 0)]


def merge(*histograms: Buckets) -> dict[int, int]:
    """Return the histogram with the values of all histograms."""
    merged: dict[int, int] = {}
    for buckets in histograms:
        for index, count in buckets.items():
            merged[index] = merged.get(index, 0) + count
    return merged


def subtract(later: Buckets, earlier: Buckets) -> dict[int, int]:
    """Return the values that a histogram received between two moments.

    If a bucket of `earlier` has more values, the process was restarted between the moments. All
    values of `later` are then new.
    """
    if any(later.get(index, 0) < count for index, count in earlier.items()):
        return dict(later)
    return {
        index: count - earlier.get(index, 0)
        for index, count in later.items()
        if count > earlier.get(index, 0)
    }


def cumulative_counts(buckets: Buckets) -> list[tuple[float, int]]:
    """Return each of `EXPOSED_BOUNDS` with the number of values that are at most this bound.

    The last bound is infinity, with the number of all values. Prometheus expects this form.
    """
    counts = [0] * (len(BOUNDS) + 1)
    for index, count in buckets.items():
        counts[min(max(index, 0), len(BOUNDS))] += count
    running = list(accumulate(counts))
    exposed = [(BOUNDS[index], running[index]) for index in _EXPOSED_INDEXES]
    return [*exposed, (inf, running[-1])]
