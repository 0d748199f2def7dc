"""Settlement: the decision to ack, retry or dead-letter a message after an attempt.

The functions are pure. `bus.runtime` executes the decisions. tenacity computes the waits between
attempts.
"""

from dataclasses import dataclass

from tenacity import wait_chain, wait_exponential, wait_fixed

from bus.contracts.retry_policy import RetryPolicy
from bus.errors import BusError, code_of, safe_reason
from bus.messaging.backoff import wait_seconds

__all__ = [
    "Ack",
    "MoveToDeadLetters",
    "Retry",
    "Settlement",
    "decide",
    "delay_after",
    "distinct_delays",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ack:
    """Decision to ack the message."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Retry:
    """Decision to send a copy to a retry tier, and then ack the message."""

    delay: float
    """Seconds to wait before the next attempt."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MoveToDeadLetters:
    """Decision to send a copy to the dead-letter queue, and then ack the message."""

    code: str
    """Code of the error."""
    reason: str
    """Class name of the error. The error's text follows the class name if the error is a `BusError`
    other than `Internal`. The reason of a group names its errors."""


Settlement = Ack | Retry | MoveToDeadLetters


def delay_after(attempt: int, policy: RetryPolicy) -> float:
    """Return the seconds to wait after attempt `attempt` has failed. The first attempt is 1."""
    if policy.delays:
        return wait_seconds(wait_chain(*map(wait_fixed, policy.delays)), attempt)
    wait = wait_exponential(
        multiplier=policy.first_delay, exp_base=policy.factor, max=policy.longest_delay
    )
    return wait_seconds(wait, attempt)


def distinct_delays(policy: RetryPolicy) -> tuple[float, ...]:
    """Return the different waits between the attempts, in seconds, in the order of their first use.

    The number of attempts can be very large, so the function stops if no further wait can differ.
    """
    if policy.delays:
        return tuple(dict.fromkeys(policy.delays))
    delays: dict[float, None] = {}
    for attempt in range(1, policy.attempts):
        delay = delay_after(attempt, policy)
        delays[delay] = None
        if delay in (0, policy.longest_delay) or policy.factor == 1:
            break
    return tuple(delays)


def decide(
    error: BaseException | None, attempt: int, policy: RetryPolicy, *, lasted: float = 0
) -> Settlement:
    """Decide the settlement of an event or job after an attempt.

    Args:
        error: Error of the attempt. None if it succeeded.
        attempt: Number of the attempt, from 1.
        policy: Retry policy of the handler.
        lasted: Seconds since the first failure.
    """
    if error is None:
        return Ack()
    if attempt >= policy.attempts or _is_permanent(error, policy):
        return MoveToDeadLetters(code=code_of(error), reason=safe_reason(error))
    delay = delay_after(attempt, policy)
    if policy.total_time is not None and lasted + delay > policy.total_time:
        return MoveToDeadLetters(code=code_of(error), reason=safe_reason(error))
    return Retry(delay=delay)


def _is_permanent(error: BaseException, policy: RetryPolicy) -> bool:
    """Return True if no retry can help. A group is permanent if all its errors are permanent."""
    pending = [error]
    while pending:
        each = pending.pop()
        if isinstance(each, policy.permanent):
            continue
        if isinstance(each, BaseExceptionGroup):
            pending.extend(each.exceptions)
        elif not isinstance(each, BusError) or each.retryable:
            return False
    return True
