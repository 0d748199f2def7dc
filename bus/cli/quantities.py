"""Short texts of durations, numbers and shares, for tables."""

import time

from bus.cli.queue_table import UNKNOWN, age

__all__ = ["format_ago", "format_duration", "format_number", "format_rate", "format_share"]

MINUTES_FROM_SECONDS = 100.0
MILLISECONDS = 1000
WITHOUT_DECIMALS_FROM = 10
MIN_SHOWN_RATE, MIN_SHOWN_SHARE = 0.05, 0.0005


def format_duration(seconds: float | None) -> str:
    """Return a duration with two or three digits: `0.4ms`, `12ms`, `340ms`, `2.5s`, `45s`, `3m`."""
    if seconds is None:
        return UNKNOWN
    if seconds >= MINUTES_FROM_SECONDS:
        return age(seconds)
    # 0.9996 s is shown as 1.0s, and not as 1000ms.
    is_long = round(seconds * MILLISECONDS) >= MILLISECONDS
    value, unit = (seconds, "s") if is_long else (seconds * MILLISECONDS, "ms")
    return f"{value:.0f}{unit}" if has_two_digits(value) else f"{value:.1f}{unit}"


def has_two_digits(value: float) -> bool:
    """Return True if the value, rounded to one decimal, has two digits before the decimal."""
    return round(value, 1) >= WITHOUT_DECIMALS_FROM


def format_number(number: int) -> str:
    """Return a number with commas: `12,345`."""
    return f"{number:,}"


def format_rate(per_second: float | None) -> str:
    """Return a rate per second: `0.2`, `12`, `1,234`."""
    if per_second is None:
        return UNKNOWN
    if per_second == 0 or has_two_digits(per_second):
        return f"{per_second:,.0f}"
    return f"{per_second:.1f}" if per_second >= MIN_SHOWN_RATE else "<0.1"


def format_share(part: int, whole: int) -> str:
    """Return a share in percent: `0%`, `<0.1%`, `0.3%`, `12%`."""
    if whole <= 0:
        return UNKNOWN
    share = part / whole
    if 0 < share < MIN_SHOWN_SHARE:
        return "<0.1%"
    percent = 100 * share
    return f"{percent:.0f}%" if part == 0 or has_two_digits(percent) else f"{percent:.1f}%"


def format_ago(milliseconds: int | None, now: float | None = None) -> str:
    """Return the time since a moment in its largest unit: `45s`, `3m`, `2h`, `5d`.

    Args:
        milliseconds: The moment, in milliseconds since the epoch.
        now: Seconds since the epoch. None: the current time.
    """
    if milliseconds is None:
        return UNKNOWN
    return age(max(0.0, (time.time() if now is None else now) - milliseconds / 1000))
