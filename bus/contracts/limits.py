"""Limits: checks of the seconds and the counts that a caller or a declaration passes.

Each check returns the checked number. A check never shows a value that is not a number.
"""

from numbers import Integral, Real
from typing import Any

from bus.errors import BusError, ConfigurationError

__all__ = ["MAX_SECONDS", "check_count", "check_seconds", "describe", "is_number"]

MAX_SECONDS = 100 * 365 * 24 * 3600
"""Maximum number of seconds that the bus accepts: 100 years.

A much longer time cannot be expressed in the milliseconds of a header.
"""
MAX_COUNT = 2**31 - 1
PLAIN_NUMBERS = (float, int)


def check_seconds(
    value: Any,
    argument: str,
    subject: str,
    *,
    shortest: float | None = None,
    longest: float = MAX_SECONDS,
    error: type[BusError] = ConfigurationError,
) -> float:
    """Return `value` if it is a finite number of seconds. Refuse NaN, infinity and booleans.

    Args:
        value: Number of seconds. An `int`, a `float`, or another real number.
        argument: Name of the argument, for the error message.
        subject: Type of the message or name of the declaration, for the error message.
        shortest: Minimum number of seconds. None: above 0.
        longest: Maximum number of seconds.
        error: Class of the error.

    Raises:
        BusError: `value` is not a number, or is out of range. The error has the class `error`.
    """
    # A comparison with NaN is false, so NaN is out of range.
    least = shortest or 0
    if value.__class__ in PLAIN_NUMBERS and 0 < value <= longest and value >= least:  # fast
        checked: float = value
        return checked
    if is_number(value) and least <= value <= longest and (value > 0 or shortest == 0):
        return float(value)
    lower = "above 0 and up" if shortest is None else f"from {shortest:g}"
    raise error(
        f"{subject}: {argument} must be a number of seconds {lower} to {longest:.10g}, not "
        f"{describe(value)}. {_remedy(value, argument)}"
    )


def check_count(
    value: Any,
    argument: str,
    subject: str,
    *,
    most: int = MAX_COUNT,
    error: type[BusError] = ConfigurationError,
) -> int:
    """Return `value` if it is a whole number from 1 to `most`. Refuse booleans.

    Args:
        value: Number. An `int`, or another integral number.
        argument: Name of the argument, for the error message.
        subject: Type of the message or name of the declaration, for the error message.
        most: Maximum.
        error: Class of the error.

    Raises:
        BusError: `value` is not a whole number, or is out of range. The error has the class
            `error`.
    """
    if is_number(value, Integral) and 1 <= value <= most:
        return int(value)
    raise error(
        f"{subject}: {argument} must be a whole number from 1 to {most}, not {describe(value)}. "
        f"Write a number such as 4."
    )


def is_number(value: object, kind: type = Real) -> bool:
    """Return True if `value` is a number of this kind, and not a boolean."""
    return isinstance(value, kind) and not isinstance(value, bool)


def describe(value: object) -> str:
    """Return a number or None as text. Return only the type of any other value."""
    if isinstance(value, bool) or value is None:
        return str(value)
    if not isinstance(value, Real):
        return f"a value of type {type(value).__name__}"
    try:
        text = f"{float(value):.10g}"
    except OverflowError:
        return "a larger number"
    is_whole = isinstance(value, Integral)
    return f"{text}.0" if text.removeprefix("-").isdigit() and not is_whole else text


def _remedy(value: object, argument: str) -> str:
    if hasattr(value, "total_seconds"):
        return "Write the result of total_seconds() instead."
    return f"Write a number such as 2.5, or leave {argument.partition('[')[0]} out."
