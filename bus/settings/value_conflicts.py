"""The checks of pairs of values, such as a limit of an attempt that is above the timeout."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from bus.messaging.resilience.call_policy import BreakerPolicy
from bus.settings.service_variables import DEFAULTS
from bus.settings.value_rules import OFF

__all__ = ["find_conflicts"]

Values = Mapping[str, Mapping[str, Any]]
Locate = Callable[[str, str], str]
REQUEST_TIMEOUT = "BUS_REQUEST_TIMEOUT"
TIMED = ("hedge_after", "breaker_slow_call")
"""Values that say something only if they are less than the limit of one attempt."""
OPEN, LONGEST = "breaker_open_time", "breaker_longest_open_time"


def find_conflicts(values: Values, request_timeout: float, locate: Locate) -> list[str]:
    """Return a text for each pair of values that contradict each other.

    A pair is checked for the service that has at least one of the two values. A default for all
    services does not contradict a shorter limit of one service, and is left out for that service.

    Args:
        values: Checked values by service and key. The key `DEFAULTS` has those of all services.
        request_timeout: Seconds that a request waits by default.
        locate: Function that returns the place of a value, of a service and a key.
    """
    return [
        conflict
        for service in values
        for conflict in _Pairs(values, service, request_timeout, locate).conflicts()
    ]


class _Pairs:
    """The pairs of values of one service, or of the defaults."""

    def __init__(
        self, values: Values, service: str, request_timeout: float, locate: Locate
    ) -> None:
        self._own, self._defaults = values[service], values.get(DEFAULTS, {})
        self._service, self._locate = service, locate
        self._request_timeout = request_timeout

    def conflicts(self) -> Iterator[str]:
        """Yield the conflicts."""
        own, limit = self._own, self._timeout()
        attempt = self._value("attempt_timeout")
        if attempt is not None and self._is_own("attempt_timeout") and attempt >= limit[0]:
            yield self._describe("attempt_timeout", "less than", limit[1])
        elif attempt is not None and attempt < limit[0]:
            limit = attempt, f"attempt_timeout ({self._place('attempt_timeout')})"
        for key in TIMED:
            value = self._value(key)
            if value is not None and self._is_own(key) and value >= limit[0]:
                yield self._describe(key, "less than", limit[1])
        if OPEN in own or LONGEST in own:
            yield from self._compare_open_times()

    def _compare_open_times(self) -> Iterator[str]:
        built_in = BreakerPolicy()
        first = self._value(OPEN) or built_in.open_time
        longest = self._value(LONGEST) or built_in.longest_open_time
        if first <= longest:
            return
        if OPEN in self._own:
            other = self._name(LONGEST, built_in.longest_open_time)
            yield self._describe(OPEN, "at most", other)
        else:
            other = self._name(OPEN, built_in.open_time)
            yield self._describe(LONGEST, "at least", other, advice="larger")

    def _timeout(self) -> tuple[float, str]:
        """Return the timeout of a request, and its name."""
        timeout = self._own.get("timeout")
        if timeout is None:
            return self._request_timeout, f"the timeout of a request ({REQUEST_TIMEOUT})"
        return timeout, f"timeout ({self._locate(self._service, 'timeout')})"

    def _value(self, key: str) -> Any:
        value = self._own.get(key, self._defaults.get(key))
        return None if value == OFF else value

    def _is_own(self, key: str) -> bool:
        return key in self._own

    def _place(self, key: str) -> str:
        return self._locate(self._service if key in self._own else DEFAULTS, key)

    def _name(self, key: str, built_in: float) -> str:
        """Return the name of a key with its place. A key that is not set has a known value."""
        if key in self._own or key in self._defaults:
            return f"{key} ({self._place(key)})"
        return f"{key}, which is {built_in:g} s if it is not set"

    def _describe(self, key: str, relation: str, other: str, *, advice: str = "smaller") -> str:
        return (
            f"{self._place(key)}: must be {relation} {other}. Write a {advice} number, or remove "
            "the value"
        )
