"""The circuit breaker: it stops calls to a destination that fails, until a probe succeeds.

Source: Nygard, "Release It!" (2007).
"""

from collections.abc import Callable
from typing import Final, Literal

from bus.messaging.breaker_info import BreakerInfo, BreakerState
from bus.messaging.resilience.call_policy import BreakerPolicy
from bus.messaging.resilience.open_time import OpenTime
from bus.messaging.resilience.sliding_window import SlidingWindow
from bus.messaging.timers import format_seconds

__all__ = ["PROBE_SECONDS", "BreakerKind", "CircuitBreaker", "Permit"]

PROBE_SECONDS: Final = 60.0
"""Seconds after which another probe can begin although the result of the last one is unknown."""
BUSY_RETRY_SECONDS: Final = 1.0
"""Seconds after which a caller may try again while the probe of another caller runs."""

BreakerKind = Literal["call", "dependency"]


class Permit:
    """The permission for one call. The caller returns it with the result of the call.

    All calls of a closed breaker share one permit until the state changes. So the result of a call
    that began before the change counts nothing.
    """

    __slots__ = ("is_probe",)

    def __init__(self, *, is_probe: bool) -> None:
        self.is_probe = is_probe
        """True if the call decides whether the breaker closes."""


class CircuitBreaker:
    """The state of one breaker: closed, open, half-open, or isolated by an operator.

    The caller calls `admit` before each call. With a permit, the caller then calls `success`,
    `failure` or `ignore` exactly once.
    """

    def __init__(
        self,
        policy: BreakerPolicy,
        name: str,
        kind: BreakerKind,
        timer: Callable[[], float],
        clock: Callable[[], float],
        on_change: Callable[[BreakerInfo], None],
    ) -> None:
        """Create a closed breaker.

        Args:
            policy: Limits and times.
            name: Type of an operation, or name of a dependency.
            kind: `call` for an operation, or `dependency`.
            timer: Function that returns monotonic seconds.
            clock: Function that returns seconds since the epoch.
            on_change: Function that is called after each change of the state. It must not raise.
        """
        self.policy, self.name, self.kind = policy, name, kind
        self._timer, self._clock, self._on_change = timer, clock, on_change
        self.on_open: Callable[[], None] | None = None
        """Function that ends the calls that wait inside the breaker. It is called after each change
        to open or isolated, and must not raise."""
        self._open_time = OpenTime(policy)
        self._slow_call = float("inf") if policy.slow_call is None else policy.slow_call
        self._window = SlidingWindow(policy.window, timer())
        self._state: BreakerState = "closed"
        self._since = clock()
        self._not_closed_since: float | None = None
        self._shared: Permit | None = Permit(is_probe=False)
        """The permit of all calls. None unless the breaker is closed."""
        self._probe: Permit | None = None
        self._probe_ends = self._until = 0.0
        self._consecutive = self._successes = 0
        self._wait = 0.0
        self._opened = self._rejected = 0
        self._cause: str | None = None
        self._by: str | None = None
        self._reason: str | None = None

    @property
    def state(self) -> BreakerState:
        """The state now. It is half-open if the next call is a probe."""
        return "half-open" if self._is_wait_over() else self._state

    @property
    def timer(self) -> Callable[[], float]:
        """Function that returns monotonic seconds."""
        return self._timer

    @property
    def since(self) -> float:
        """Time of the last change of the state, in seconds since the epoch."""
        return self._since

    @property
    def cause(self) -> str | None:
        """Cause of the last change, for example `5 consecutive failures (unavailable)`."""
        return self._cause

    @property
    def consecutive(self) -> int:
        """Number of failures since the last success, if the breaker is closed."""
        return self._consecutive

    @property
    def retry_after(self) -> float:
        """Seconds until the next probe, or until the isolation ends. 0 if calls are admitted."""
        if self._shared is not None:
            return 0.0
        if self._state == "half-open":
            if self._probe is None:
                return 0.0
            return max(0.0, min(BUSY_RETRY_SECONDS, self._probe_ends - self._timer()))
        return max(0.0, self._until - self._timer())

    def admit(self, seconds: float = PROBE_SECONDS) -> Permit | None:
        """Return the permit for one call, or None if the call must not begin.

        Args:
            seconds: Time after which a probe counts as lost, so that another one can begin.
        """
        # The method returns here for each call of a closed breaker.
        if self._shared is not None:
            return self._shared
        return self._admit_probe(seconds)

    def counts(self, permit: Permit) -> bool:
        """Return True if the result of a call with this permit would count now."""
        return permit is self._shared or permit is self._probe

    def success(self, permit: Permit, seconds: float = 0.0) -> None:
        """Count a call that succeeded.

        Args:
            permit: Permit of the call.
            seconds: Duration of the call. A probe that was slow counts as failed.
        """
        slow = seconds >= self._slow_call
        if permit is self._shared:
            window = self._window
            self._consecutive = 0
            if slow:
                window.add(self._timer(), failed=False, slow=True)
            else:
                window.succeed(self._timer())
            if window.failures or window.slow:
                self._check_rates(None)
        elif permit is self._probe:
            if slow:
                self._reopen(f"a probe took {format_seconds(seconds)}")
            else:
                self._count_probe()

    def failure(
        self, permit: Permit, seconds: float, cause: str, retry_after: float | None = None
    ) -> None:
        """Count a call that failed through the fault of the destination.

        Args:
            permit: Permit of the call.
            seconds: Duration of the call. It can be slow, too.
            cause: Code of the error. It must not contain values of payloads.
            retry_after: Seconds after which the destination states that it is back. If this call
                opens the breaker, they replace a longer open time of the policy.
        """
        if permit is self._shared:
            slow = seconds >= self._slow_call
            self._window.add(self._timer(), failed=True, slow=slow)
            self._consecutive += 1
            limit = self.policy.consecutive_failures
            if limit is not None and self._consecutive >= limit:
                self._open(f"{self._consecutive} consecutive failures ({cause})", retry_after)
            else:
                self._check_rates(cause, retry_after)
        elif permit is self._probe:
            self._reopen(f"a probe failed ({cause})", retry_after)

    def ignore(self, permit: Permit) -> None:
        """Count nothing, because the call does not show the state of the destination.

        After an ignored probe, the next call is the probe.
        """
        if permit is self._probe:
            self._probe = None

    def isolate(self, until: int, by: str, reason: str) -> None:
        """Reject all calls until a given time. After that, single probes decide.

        Args:
            until: End, in milliseconds since the epoch.
            by: Operator who gave the order.
            reason: Reason of the operator.
        """
        self._wait = max(0.0, until / 1000 - self._clock())
        self._change("isolated", "isolated by an operator", by=by, reason=reason)

    def reset(self, by: str, reason: str) -> None:
        """Close the breaker by an order, and forget all results.

        Args:
            by: Operator who gave the order.
            reason: Reason of the operator.
        """
        self._open_time.reset()
        self._change("closed", "reset by an operator", by=by, reason=reason)

    def info(self) -> BreakerInfo:
        """Return the state and the counts of the breaker. Any thread can call this method."""
        now, state = self._timer(), self.state
        calls, failures, slow = self._window.counts(now)
        is_waiting = state in {"open", "isolated"}
        left = self._until - now
        since, begin = self._since, self._not_closed_since
        if state != self._state:  # the wait has ended, and no call has begun since then
            since += self._wait
        return BreakerInfo(
            name=self.name,
            kind=self.kind,
            state=state,
            since=int(since * 1000),
            not_closed_since=None if begin is None else int(begin * 1000),
            until=int((self._clock() + left) * 1000) if is_waiting else None,
            calls=calls,
            failures=failures,
            slow=slow,
            opened=self._opened,
            rejected=self._rejected,
            cause=self._cause,
            ordered_by=self._by,
            reason=self._reason,
            wait=self._wait if is_waiting else None,
        )

    def _admit_probe(self, seconds: float) -> Permit | None:
        if self._is_wait_over():
            self._change("half-open", self._cause, by=self._by, reason=self._reason)
        if self._state == "half-open":
            now = self._timer()
            if self._probe is None or now >= self._probe_ends:
                self._probe = Permit(is_probe=True)
                self._probe_ends = now + seconds
                return self._probe
        self._rejected += 1
        return None

    def _is_wait_over(self) -> bool:
        """Return True if the open time or the isolation has ended, so the next call is a probe."""
        return self._state in {"open", "isolated"} and self._timer() >= self._until

    def _check_rates(self, cause: str | None, retry_after: float | None = None) -> None:
        """Open the breaker if too many calls in the window have failed, or were slow."""
        window, policy = self._window, self.policy
        if window.calls < policy.min_calls:
            return
        total = f"of {window.calls} calls in {format_seconds(policy.window)}"
        if window.failures and window.failures >= policy.failure_rate * window.calls:
            last = f" ({cause})" if cause else ""
            self._open(f"{window.failures} {total} failed{last}", retry_after)
        elif window.slow and window.slow >= policy.slow_rate * window.calls:
            self._open(f"{window.slow} {total} took {format_seconds(self._slow_call)} or longer")

    def _count_probe(self) -> None:
        self._probe = None
        self._successes += 1
        if self._successes >= self.policy.successes:
            self._open_time.closed(self._timer())
            self._change("closed", f"{self._successes} successful probes in a row")

    def _open(self, cause: str, retry_after: float | None = None) -> None:
        self._open_time.opened(self._timer())
        self._reopen(cause, retry_after)

    def _reopen(self, cause: str, retry_after: float | None = None) -> None:
        self._wait = self._open_time.take(retry_after)
        self._opened += 1
        self._change("open", cause)

    def _change(
        self,
        state: BreakerState,
        cause: str | None,
        *,
        by: str | None = None,
        reason: str | None = None,
    ) -> None:
        now = self._timer()
        self._state, self._cause, self._by, self._reason = state, cause, by, reason
        self._since = self._clock()
        self._probe, self._consecutive, self._successes = None, 0, 0
        self._shared = Permit(is_probe=False) if state == "closed" else None
        if state == "closed":
            self._not_closed_since = None
            self._window.clear(now)
        elif state != "half-open":
            self._until = now + self._wait
            self._not_closed_since = self._not_closed_since or self._since
        self._on_change(self.info())
        if self.on_open is not None and state in {"open", "isolated"}:
            self.on_open()
