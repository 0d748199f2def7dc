"""What to do after a failure: pure decisions, acted upon elsewhere. Every wait is computed here, by tenacity."""

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
    "delays_of",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ack:
    """Done."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Retry:
    """A copy into the retry tier for `delay` seconds, then ack."""

    delay: float


@dataclass(frozen=True, slots=True, kw_only=True)
class MoveToDeadLetters:
    """A copy into the dead-letter queue, then ack."""

    code: str
    reason: str


Settlement = Ack | Retry | MoveToDeadLetters


def delay_after(attempt: int, policy: RetryPolicy) -> float:
    """Seconds to wait after attempt `attempt` (from 1) has failed."""
    if policy.delays:
        return wait_seconds(wait_chain(*map(wait_fixed, policy.delays)), attempt)
    wait = wait_exponential(
        multiplier=policy.first_delay, exp_base=policy.factor, max=policy.longest_delay
    )
    return wait_seconds(wait, attempt)


def delays_of(policy: RetryPolicy) -> tuple[float, ...]:
    """The waits between all attempts, in seconds."""
    return tuple(delay_after(attempt, policy) for attempt in range(1, policy.attempts))


def decide(
    error: BaseException | None, attempt: int, policy: RetryPolicy, *, lasted: float = 0
) -> Settlement:
    """What becomes of an event or job after attempt `attempt` (from 1) ended with `error`, or well.

    `lasted` is the seconds since its first failure.
    """
    if error is None:
        return Ack()
    if attempt >= policy.attempts or _permanent(error, policy):
        return MoveToDeadLetters(code=code_of(error), reason=safe_reason(error))
    delay = delay_after(attempt, policy)
    if policy.total_time is not None and lasted + delay > policy.total_time:
        return MoveToDeadLetters(code=code_of(error), reason=safe_reason(error))
    return Retry(delay=delay)


def _permanent(error: BaseException, policy: RetryPolicy) -> bool:
    return isinstance(error, policy.permanent) or (
        isinstance(error, BusError) and not error.retryable
    )
