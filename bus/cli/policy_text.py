"""The policies for the calls to one service as text, for `bus doctor`."""

from collections.abc import Iterator

from bus.messaging.resilience.call_policy import BreakerPolicy, CallPolicy
from bus.messaging.timers import format_seconds
from bus.middleware.retry import DEFAULT_RETRIES

__all__ = ["describe_policy"]

OFF = "off"


def describe_policy(policy: CallPolicy) -> str:
    """Return the policies that apply to the calls to one service, in one line."""
    return "; ".join(_parts(policy))


def _parts(policy: CallPolicy) -> Iterator[str]:
    attempt = policy.attempt_timeout
    yield f"attempt timeout {OFF if attempt is None else format_seconds(attempt)}"
    retries = DEFAULT_RETRIES if policy.retries is None else policy.retries
    budget = OFF if policy.retry_budget is None else f"{policy.retry_budget:.10g}"
    yield f"retries at most {retries}, budget {budget}"
    yield "breaker off" if policy.breaker is None else _describe_breaker(policy.breaker)
    if policy.max_in_flight is None:
        yield "in flight without a limit"
    else:
        yield f"in flight at most {policy.max_in_flight}, waiting at most {policy.max_waiting}"
    hedge = policy.hedge_after
    yield f"hedge {OFF if hedge is None else f'after {format_seconds(hedge)}'}"
    yield f"cache {'on' if policy.cache else OFF}"


def _describe_breaker(breaker: BreakerPolicy) -> str:
    rates = [f"{breaker.failure_rate:.10g} of failed calls"]
    if breaker.slow_call is not None:
        slow = format_seconds(breaker.slow_call)
        rates.append(f"{breaker.slow_rate:.10g} of calls from {slow}")
    text = (
        f"breaker opens at {' or '.join(rates)} (of {breaker.min_calls} in "
        f"{format_seconds(breaker.window)})"
    )
    if breaker.consecutive_failures is not None:
        text += f" or {breaker.consecutive_failures} failures in a row"
    first, longest = map(format_seconds, (breaker.open_time, breaker.longest_open_time))
    return f"{text}, for {first} to {longest}"
