"""The rules for the values of calls: the type and the range of each key."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any, Final

from bus.contracts.limits import is_number

__all__ = ["MAX_TIMEOUT_SECONDS", "OFF", "POLICY_RULES", "TIMED_KEYS", "TIMEOUT_RULE", "ValueRule"]

MAX_TIMEOUT_SECONDS = 24 * 3600
"""Maximum timeout of a request, the same as for `BUS_REQUEST_TIMEOUT`."""
MAX_WINDOW_SECONDS = 3600
"""Maximum length of the sliding window. A longer one would remember failures that are over."""
MAX_RETRIES = 1000
"""Maximum number of retries. With waits of up to 1 s it lasts for about 8 minutes."""
MAX_CALLS = 1_000_000
MAX_GROWTH = 100
ON, OFF = "on", "off"


@dataclass(frozen=True, slots=True, kw_only=True)
class ValueRule:
    """The type and the range of one value."""

    allowed: str
    """The type and the range, for errors and for the manual."""
    advice: str
    """The instruction of an error."""
    read: Callable[[Any], Any]
    """Function that returns the checked value, or None if the value is wrong.

    It can also raise ValueError with a text of its own.
    """
    parse: Callable[[str], Any]
    """Function that converts the text of a variable. It raises ValueError for another type."""
    can_be_off: bool = False

    def check(self, value: object) -> Any:
        """Return the checked value.

        Raises:
            ValueError: The value is wrong. The text has no full stop at its end, and no value.
        """
        if self.can_be_off and isinstance(value, str) and value == OFF:
            return OFF
        checked = self.read(value)
        if checked is None:
            raise ValueError(f"must be {self.allowed}. {self.advice}")
        return checked

    def parse_text(self, text: str) -> Any:
        """Return the value in the text of a variable, or None for text of another type."""
        if self.can_be_off and text == OFF:
            return OFF
        try:
            return self.parse(text)
        except ValueError:
            return None


def _number_rule(
    allowed: str, example: str, is_allowed: Callable[[Any], bool], *, can_be_off: bool = False
) -> ValueRule:
    # A comparison with NaN is false, so NaN is out of range.
    return ValueRule(
        allowed=allowed + ", or off" * can_be_off,
        advice=f"Write a number such as {example}" + ", or off" * can_be_off,
        read=lambda value: float(value) if is_number(value, Real) and is_allowed(value) else None,
        parse=float,
        can_be_off=can_be_off,
    )


def _seconds_rule(
    example: str, *, most: int = MAX_TIMEOUT_SECONDS, can_be_off: bool = False
) -> ValueRule:
    return _number_rule(
        f"a number of seconds above 0 and up to {most}",
        example,
        lambda value: 0 < value <= most,
        can_be_off=can_be_off,
    )


def _rate_rule() -> ValueRule:
    return _number_rule("a number above 0 and up to 1", "0.5", lambda value: 0 < value <= 1)


def _count_rule(least: int, most: int, example: int, *, can_be_off: bool = False) -> ValueRule:
    return ValueRule(
        allowed=f"a whole number from {least} to {most}" + ", or off" * can_be_off,
        advice=f"Write a number such as {example}" + ", or off" * can_be_off,
        read=lambda value: (
            int(value) if is_number(value, Integral) and least <= value <= most else None
        ),
        parse=int,
        can_be_off=can_be_off,
    )


def _switch_rule(advice: str = 'Write the text "off" for none') -> ValueRule:
    return ValueRule(
        allowed=f"{ON} or {OFF}",
        advice=advice,
        read=lambda value: value if isinstance(value, str) and value in {ON, OFF} else None,
        parse=str,
    )


TIMEOUT_RULE: Final = _seconds_rule("2.5")
POLICY_RULES: Final[Mapping[str, ValueRule]] = {
    "attempt_timeout": _seconds_rule("2.5", can_be_off=True),
    "retries": _count_rule(0, MAX_RETRIES, 3),
    "retry_budget": _number_rule(
        "a number from 0 to 1", "0.2", lambda value: 0 <= value <= 1, can_be_off=True
    ),
    "breaker": _switch_rule(),
    "breaker_failure_rate": _rate_rule(),
    "breaker_min_calls": _count_rule(1, MAX_CALLS, 20),
    "breaker_window": _seconds_rule("10", most=MAX_WINDOW_SECONDS),
    "breaker_consecutive_failures": _count_rule(1, MAX_CALLS, 5, can_be_off=True),
    "breaker_slow_call": _seconds_rule("2.5", can_be_off=True),
    "breaker_slow_rate": _rate_rule(),
    "breaker_open_time": _seconds_rule("30"),
    "breaker_longest_open_time": _seconds_rule("300"),
    "breaker_open_growth": _number_rule(
        f"a number from 1 to {MAX_GROWTH}", "1.5", lambda value: 1 <= value <= MAX_GROWTH
    ),
    "breaker_successes": _count_rule(1, MAX_CALLS, 2),
    "max_in_flight": _count_rule(1, MAX_CALLS, 1000, can_be_off=True),
    "max_waiting": _count_rule(0, MAX_CALLS, 10_000),
    "hedge_after": _seconds_rule("0.5", can_be_off=True),
    # A user can expect the seconds here. The contract sets them.
    "cache": _switch_rule(
        'Write the text "off" to keep no reply. The seconds are an option of the contract, such as '
        "@contract(…, cache=30)"
    ),
}
"""The rules of the policies' values, by key."""
TIMED_KEYS: Final = frozenset(
    {
        *("timeout", "attempt_timeout", "hedge_after", "breaker_window", "breaker_slow_call"),
        *("breaker_open_time", "breaker_longest_open_time"),
    }
)
"""Keys of values in seconds."""
