"""The wait of a message for a dependency that is down, as headers of the message.

Without these headers a message would use its attempts, or its `RetryPolicy.total_time`, while a
dependency is down. Each function returns all headers of a copy.
"""

from collections.abc import Mapping
from typing import Final

from bus.messaging.fault_record import FIRST_FAILED

__all__ = [
    "DEPENDENCY_FAILURES",
    "DEPENDENCY_RETURNS",
    "DEPENDENCY_WAIT",
    "WAIT_HEADERS",
    "count_of",
    "with_return",
    "with_wait",
]

DEPENDENCY_RETURNS: Final = "dependency-returns"
"""Header with the number of returns by a retry tier without a new attempt.

A copy has the id and the attempt of its message. This number tells the copy from a redelivery.
"""
DEPENDENCY_FAILURES: Final = "dependency-failures"
"""Header with the number of failures by a dependency while its breaker was closed.

After as many failures as open the breaker, further ones use attempts: the message itself can be the
cause if handlers of other messages succeed.
"""
DEPENDENCY_WAIT: Final = "dependency-wait"
"""Header with the milliseconds for which the message has waited since its first failure.

They do not count toward `RetryPolicy.total_time`.
"""
WAIT_HEADERS: Final = frozenset({DEPENDENCY_RETURNS, DEPENDENCY_FAILURES, DEPENDENCY_WAIT})
MAX_COUNT = 2**53
"""Limit of each number. A sender can write larger ones, which have no meaning."""

Headers = dict[str, str | int]


def count_of(headers: Mapping[str, str | int], name: str) -> int:
    """Return the number in a header, or 0 if the header is missing or has another value."""
    value = headers.get(name, 0)
    return value if type(value) is int and 0 < value < MAX_COUNT else 0


def with_return(
    headers: Mapping[str, str | int], *, waited: float, is_failure_counted: bool
) -> Headers:
    """Return the headers of a copy that returns by a retry tier without a new attempt.

    Args:
        headers: Headers of the message.
        waited: Seconds since the delivery, and the seconds in the retry tier.
        is_failure_counted: True if the handler failed while the breaker was closed.
    """
    counts = {DEPENDENCY_RETURNS: count_of(headers, DEPENDENCY_RETURNS) + 1}
    if is_failure_counted:
        counts[DEPENDENCY_FAILURES] = count_of(headers, DEPENDENCY_FAILURES) + 1
    return _with(counts, with_wait(headers, waited))


def with_wait(headers: Mapping[str, str | int], waited: float) -> Headers:
    """Return the headers of a message that has waited `waited` seconds for a dependency.

    The wait before the first failure is not needed, because `total_time` begins with this failure.
    """
    if FIRST_FAILED not in headers or waited <= 0:
        return dict(headers)
    total = count_of(headers, DEPENDENCY_WAIT) + int(waited * 1000)
    return _with({DEPENDENCY_WAIT: total}, headers)


def _with(counts: Mapping[str, int], headers: Mapping[str, str | int]) -> Headers:
    """Return the headers with new counts. They are first, because a reader cuts long headers."""
    return {**counts, **{name: value for name, value in headers.items() if name not in counts}}
