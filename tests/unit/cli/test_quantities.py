"""Short texts of durations, numbers, rates and shares."""

import pytest

from bus.cli.quantities import (
    format_ago,
    format_duration,
    format_number,
    format_rate,
    format_share,
)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, "-"),
        (0, "0.0ms"),
        (0.00004, "0.0ms"),
        (0.0004, "0.4ms"),
        (0.00994, "9.9ms"),
        (0.00996, "10ms"),
        (0.34, "340ms"),
        (0.9994, "999ms"),
        (0.9996, "1.0s"),
        (2.54, "2.5s"),
        (45.4, "45s"),
        (99.9, "100s"),
        (200, "3m"),
        (7300, "2h"),
    ],
)
def test_a_duration_has_two_or_three_digits(seconds: float | None, text: str) -> None:
    assert format_duration(seconds) == text


@pytest.mark.parametrize(
    ("rate", "text"),
    [
        (None, "-"),
        (0, "0"),
        (0.04, "<0.1"),
        (0.06, "0.1"),
        (9.94, "9.9"),
        (9.96, "10"),
        (1234.5, "1,234"),
    ],
)
def test_a_small_rate_is_not_shown_as_zero(rate: float | None, text: str) -> None:
    assert format_rate(rate) == text


@pytest.mark.parametrize(
    ("part", "whole", "text"),
    [
        (0, 0, "-"),
        (0, 5, "0%"),
        (1, 10_000, "<0.1%"),
        (1, 1000, "0.1%"),
        (99, 1000, "9.9%"),
        (1, 3, "33%"),
        (5, 5, "100%"),
    ],
)
def test_a_share_is_a_percentage(part: int, whole: int, text: str) -> None:
    assert format_share(part, whole) == text


def test_a_number_has_commas() -> None:
    assert format_number(1234567) == "1,234,567"


@pytest.mark.parametrize(
    ("milliseconds", "text"), [(None, "-"), (100_000, "0s"), (40_000, "1m"), (101_000, "0s")]
)
def test_the_time_since_a_moment_is_never_negative(milliseconds: int | None, text: str) -> None:
    assert format_ago(milliseconds, now=100) == text
