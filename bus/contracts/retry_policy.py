"""Retry policy: a value that contains the number of attempts and the waits between attempts.

`bus.messaging.settlement` applies the policy.
"""

from dataclasses import dataclass
from math import inf
from typing import Any

from bus.contracts.limits import check_count, check_seconds, describe, is_number
from bus.errors import ConfigurationError

__all__ = ["MAX_ATTEMPTS", "MAX_DELAY_SECONDS", "RetryPolicy"]

MAX_DELAY_SECONDS = 24 * 3600
"""Maximum seconds of one wait: the wait of the longest retry tier."""
MIN_DELAY_SECONDS = 1
"""Seconds of the shortest retry tier."""
MAX_ATTEMPTS = 1_000_000
"""Maximum number of attempts. With waits of at least 1 s, a message expires before its last attempt
unless `BUS_MESSAGE_TTL` is more than 11 days."""
SUBJECT = "RetryPolicy"
SEQUENCES = (tuple, list, set, frozenset)


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """Number of attempts to handle an event or job, and the waits between the attempts.

    The waits grow exponentially, or are listed in `delays`.

    >>> growing = RetryPolicy(attempts=4, first_delay=1, factor=5)  # waits 1, 5 and 30 s

    >>> listed = RetryPolicy(delays=(5, 5, 600))  # waits 5, 5 and 600 s

    Messages wait in retry tiers of 1, 5 and 30 s, 2 and 10 min, 1, 6 and 24 h. The bus rounds each
    wait up to the next tier. A wait of more than 24 h is refused. After the last attempt the
    message is dead-lettered.

    Raises:
        ConfigurationError: A value has a wrong type, or is out of range. The error names the field.
    """

    attempts: int = 5
    """Total number of attempts. If `delays` is set, it is the number of delays plus one."""
    first_delay: float = 1
    """Seconds to wait before the second attempt. More than `longest_delay` is refused."""
    factor: float = 5
    """Ratio of each wait to the previous wait."""
    longest_delay: float = 3600
    """Maximum seconds of a wait. Exponential waits that grow longer are shortened to this value."""
    delays: tuple[float, ...] = ()
    """Seconds to wait before the second, third, … attempt.

    If it is not empty, it replaces `attempts`, `first_delay`, `factor` and `longest_delay`.
    """
    total_time: float | None = None
    """Maximum seconds from the first failure to the start of an attempt. None sets no limit."""
    permanent: tuple[type[Exception], ...] = ()
    """Errors that are never retried. A `BusError` that is not `retryable` is not retried either.

    An `ExceptionGroup` is not retried if none of its errors is retried.
    """

    def __post_init__(self) -> None:
        """Check every value, and derive `attempts` from `delays`."""
        delays = _as_tuple(self.delays, "delays", "(5, 600)")
        self._set("delays", tuple(map(_check_delay, range(len(delays)), delays)))
        self._set("permanent", _check_classes(self.permanent))
        if delays:
            self._set("attempts", len(delays) + 1)
        check_count(self.attempts, "attempts", SUBJECT, most=MAX_ATTEMPTS)
        for field in ("first_delay", "longest_delay"):
            _check_wait(getattr(self, field), field)
        # Waits of up to 1 s have the same retry tier, so nothing is shortened there.
        if not delays and self.first_delay > max(self.longest_delay, MIN_DELAY_SECONDS):
            first = describe(self.first_delay)
            raise ConfigurationError(
                f"{SUBJECT}: first_delay must be at most longest_delay "
                f"({describe(self.longest_delay)} s), not {first}. "
                f"Write longest_delay={first}, or a shorter first_delay."
            )
        if not (is_number(self.factor) and 1 <= self.factor < inf):
            raise ConfigurationError(
                f"{SUBJECT}: factor must be a number of at least 1, not {describe(self.factor)}. "
                f"Write 1 for waits of the same length."
            )
        if self.total_time is not None:
            check_seconds(self.total_time, "total_time", SUBJECT)

    def _set(self, field: str, value: object) -> None:
        object.__setattr__(self, field, value)


def _check_wait(value: Any, field: str) -> float:
    return check_seconds(value, field, SUBJECT, shortest=0, longest=MAX_DELAY_SECONDS)


def _check_delay(position: int, value: Any) -> float:
    return _check_wait(value, f"delays[{position}]")


def _as_tuple(value: Any, field: str, example: str) -> tuple[Any, ...]:
    """Return a tuple, list or set as a tuple, because a policy must be hashable."""
    if isinstance(value, SEQUENCES):
        return tuple(value)
    raise ConfigurationError(
        f"{SUBJECT}: {field} must be a tuple, not a value of type {type(value).__name__}. "
        f"Write {field}={example}."
    )


def _check_classes(value: Any) -> tuple[type[Exception], ...]:
    if isinstance(value, type) and issubclass(value, BaseException):
        value = (value,)
    classes = _as_tuple(value, "permanent", "(ValueError, KeyError)")
    for position, each in enumerate(classes):
        if not (isinstance(each, type) and issubclass(each, BaseException)):
            raise ConfigurationError(
                f"{SUBJECT}: permanent[{position}] must be a class of exceptions, not "
                f"{_describe_class(each)}. Write permanent=(ValueError, KeyError)."
            )
    return classes


def _describe_class(value: object) -> str:
    if isinstance(value, type):
        return f"the class {value.__name__}"
    return f"a value of type {type(value).__name__}"
