"""What to do after a failure: pure decisions, acted upon elsewhere. Every wait is computed here, by tenacity."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from tenacity import RetryCallState, wait_chain, wait_exponential, wait_fixed, wait_random_exponential
from tenacity.wait import wait_base

from bus.contracts.retry_policy import RetryPolicy
from bus.errors import BusError, Internal

__all__ = [
    "Ack",
    "DeadLetter",
    "Requeue",
    "Retry",
    "Settlement",
    "backoff",
    "code_of",
    "delay_after",
    "delays_of",
    "is_own_cancel",
    "place_of",
    "reason_of",
    "settle",
    "supervised",
]


log = logging.getLogger("bus.recovery")


@dataclass(frozen=True, slots=True, kw_only=True)
class Ack:
    """Done."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Retry:
    """A copy into the retry tier for `delay` seconds, then ack."""

    delay: float


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetter:
    """A copy into the dead-letter queue, then ack."""

    code: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Requeue:
    """Back to the broker; only where even the copy could not be published."""


Settlement = Ack | Retry | DeadLetter | Requeue


def delay_after(attempt: int, policy: RetryPolicy) -> float:
    """Seconds to wait after attempt `attempt` (from 1) has failed."""
    if policy.delays:
        return _seconds(wait_chain(*map(wait_fixed, policy.delays)), attempt)
    wait = wait_exponential(multiplier=policy.first_delay, exp_base=policy.factor, max=policy.longest_delay)
    return _seconds(wait, attempt)


def delays_of(policy: RetryPolicy) -> tuple[float, ...]:
    """The waits between all attempts, in seconds."""
    return tuple(delay_after(attempt, policy) for attempt in range(1, policy.attempts))


def settle(error: BaseException | None, attempt: int, policy: RetryPolicy, *, lasted: float = 0) -> Settlement:
    """What becomes of an event or job after attempt `attempt` (from 1) ended with `error`, or well.

    `lasted` is the seconds since its first failure.
    """
    if error is None:
        return Ack()
    if attempt >= policy.attempts or _permanent(error, policy):
        return DeadLetter(code=code_of(error), reason=reason_of(error))
    delay = delay_after(attempt, policy)
    if policy.total_time is not None and lasted + delay > policy.total_time:
        return DeadLetter(code=code_of(error), reason=reason_of(error))
    return Retry(delay=delay)


def reason_of(error: BaseException) -> str:
    """What may be written down of an error: the class, and the text only of ours (another's, as `Internal`'s, could hold a payload)."""
    name = type(error).__name__
    return f"{name}: {error}" if isinstance(error, BusError) and not isinstance(error, Internal) else name


def _permanent(error: BaseException, policy: RetryPolicy) -> bool:
    return isinstance(error, policy.permanent) or (isinstance(error, BusError) and not error.retryable)


def code_of(error: BaseException) -> str:
    """The error's code; `internal` for what is not the bus's."""
    return error.code if isinstance(error, BusError) else "internal"


# Full jitter (Brooker, "Exponential Backoff And Jitter", 2015), capped so that recovery takes at most a second longer than the fault.
RECONNECT = wait_random_exponential(multiplier=0.1, max=1)
STABLE_AFTER = 5.0
"""Seconds that a step has to last for its next failure to count as the first."""


def backoff(attempt: int, wait: wait_base = RECONNECT) -> float:
    """Seconds to wait after failure number `attempt` (from 1), with full jitter, at most 1."""
    return _seconds(wait, attempt)


def _seconds(wait: wait_base, attempt: int) -> float:
    state = RetryCallState(retry_object=_NO_RETRYING, fn=None, args=(), kwargs={})
    state.attempt_number = attempt
    return wait(state)


# tenacity's waits read only the attempt's number from the state.
_NO_RETRYING: Any = None


async def supervised(
    step: Callable[[], Awaitable[None]],
    *,
    trouble: tuple[type[BaseException], ...],
    report: Callable[[BaseException], None],
) -> None:
    """Run `step` for ever: after each end, and each error, wait with full jitter and run it again.

    Only being cancelled ends it. What is not in `trouble` is a fault of the program: logged as one, and survived all the
    same, since a consumer that is silently gone is worse. A library's own CancelledError, which it puts into what waits
    when it closes, is survived, too.
    """
    loop = asyncio.get_running_loop()
    failures = 0
    while True:
        began = loop.time()
        try:
            await _cancellable(step)
        except trouble as error:
            report(error)
        except asyncio.CancelledError as error:
            if is_own_cancel():
                raise
            report(error)
        except Exception as error:  # noqa: BLE001 - see above
            facts = {"error": type(error).__name__, "where": place_of(error)}
            log.error("a fault of the program; trying again", extra=facts)  # noqa: TRY400 - a traceback's text shows values
            report(error)
        failures = 1 if loop.time() - began > STABLE_AFTER else failures + 1
        await asyncio.sleep(backoff(failures))


CANCEL_AGAIN = 2.5
"""Seconds that a cancelled step has to clean up before it is cancelled again; longer than a connection's goodbye takes."""


async def _cancellable(step: Callable[[], Awaitable[None]]) -> None:
    """Run `step` so that a cancellation ends it: aiormq's calls swallow one now and then, or make an error of theirs of it."""
    running = asyncio.ensure_future(step())
    try:
        await asyncio.wait([running])
    except asyncio.CancelledError:
        while not running.done():
            running.cancel()
            await asyncio.wait([running], timeout=CANCEL_AGAIN)
        _ = running.cancelled() or running.exception()  # looked at, so that nobody reports it as never retrieved
        raise
    running.result()


def is_own_cancel() -> bool:
    """Whether a CancelledError is meant for this task, and was not put into a future that it awaits."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def place_of(error: BaseException) -> str | None:
    """File and line of the innermost frame: enough to find the fault, and without the values that a traceback's text could show."""
    place = error.__traceback__
    while place is not None and place.tb_next is not None:
        place = place.tb_next
    return f"{place.tb_frame.f_code.co_filename}:{place.tb_lineno}" if place else None
