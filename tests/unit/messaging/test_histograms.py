"""The buckets of histograms, and the quantiles that are computed from them."""

from itertools import pairwise
from math import ceil, inf
from random import Random

import pytest

from bus.messaging.histograms import (
    BOUNDS,
    EXPOSED_BOUNDS,
    bucket_of,
    count_of,
    cumulative_counts,
    merge,
    quantile,
    subtract,
)


def histogram(values: list[float]) -> dict[int, int]:
    return merge(*({bucket_of(value): 1} for value in values))


def test_the_bounds_are_the_preferred_numbers_from_a_tenth_of_a_millisecond_to_ten_thousand_s() -> (
    None
):
    assert (BOUNDS[0], BOUNDS[-1], len(BOUNDS)) == (0.0001, 10_000, 81)
    assert BOUNDS[40:50] == (1, 1.25, 1.6, 2, 2.5, 3.15, 4, 5, 6.3, 8)
    assert list(BOUNDS) == sorted(set(BOUNDS))


def test_each_bound_is_at_most_28_percent_above_the_one_before() -> None:
    assert all(later / earlier < 1.281 for earlier, later in pairwise(BOUNDS))


@pytest.mark.parametrize(
    ("value", "bucket"),
    [(-1, 0), (0, 0), (0.0001, 0), (0.00011, 1), (1, 40), (1.01, 41), (10_000, 80), (10_001, 81)],
)
def test_a_bucket_includes_its_upper_bound(value: float, bucket: int) -> None:
    assert bucket_of(value) == bucket


@pytest.mark.parametrize("q", [0, 0.5, 0.9, 0.99, 1])
@pytest.mark.parametrize("seed", range(40))
def test_a_quantile_is_in_the_bucket_of_the_true_value(seed: int, q: float) -> None:
    random = Random(seed)
    values = sorted(10 ** random.uniform(-5, 4.5) for _ in range(random.randrange(1, 300)))
    true = values[max(0, ceil(q * len(values)) - 1)]
    found = quantile(histogram(values), q, values[-1])
    assert found is not None
    lower = 0 if bucket_of(true) == 0 else BOUNDS[bucket_of(true) - 1]
    upper = values[-1] if bucket_of(true) == len(BOUNDS) else BOUNDS[bucket_of(true)]
    assert lower <= found <= min(upper, values[-1])


def test_a_quantile_without_values_is_none() -> None:
    assert quantile({}, 0.5) is None
    assert quantile({3: 0}, 0.5) is None


def test_a_quantile_is_never_above_the_largest_value() -> None:
    assert quantile({bucket_of(0.9): 10}, 1, 0.9) == 0.9


def test_a_quantile_beyond_the_last_bound_is_between_that_bound_and_the_largest_value() -> None:
    assert quantile({81: 2}, 0.5, 30_000) == 20_000
    assert quantile({81: 2}, 0.5) == 10_000


def test_a_later_version_with_more_buckets_does_not_break_a_quantile() -> None:
    assert quantile({500: 1}, 0.5) == 10_000
    assert cumulative_counts({500: 1, -3: 1})[-1] == (inf, 2)


def test_merged_histograms_have_the_values_of_both() -> None:
    assert merge({1: 2, 3: 1}, {3: 4}, {}) == {1: 2, 3: 5}


def test_the_difference_of_two_moments_has_the_values_between_them() -> None:
    assert subtract({1: 5, 2: 1}, {1: 3}) == {1: 2, 2: 1}
    assert subtract({1: 5}, {1: 5}) == {}


def test_after_a_restart_all_values_are_new() -> None:
    assert subtract({1: 2, 4: 1}, {1: 3}) == {1: 2, 4: 1}
    assert subtract({4: 1}, {1: 3}) == {4: 1}


def test_monitoring_systems_receive_three_bounds_of_each_decade() -> None:
    assert set(EXPOSED_BOUNDS) < set(BOUNDS)
    assert len(EXPOSED_BOUNDS) == 25
    rows = dict(cumulative_counts(histogram([0.0001, 0.002, 0.0025, 3, 20_000])))
    assert (rows[0.0001], rows[0.001], rows[0.0025], rows[5], rows[inf]) == (1, 1, 3, 4, 5)
    assert count_of(histogram([1, 2])) == 2
