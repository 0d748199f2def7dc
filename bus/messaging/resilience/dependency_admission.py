"""Admission of messages whose handlers need a dependency: a breaker, and a limit under suspicion.

With `n` handlers that run at the same time, an ordinary breaker admits up to `n - 1` calls more
than its threshold. This object admits fewer messages after the first failure. So without a
success, at most the threshold or `n` calls begin, the larger one. Calls that never end cannot stop
the admission: after the maximum seconds of one message without a result, one more is admitted.
"""

from bus.messaging.resilience.circuit_breaker import CircuitBreaker, Permit
from bus.messaging.resilience.dependency import Dependency

__all__ = ["DependencyAdmission"]


class DependencyAdmission:
    """Decides which messages may reach the handlers that need one dependency."""

    def __init__(self, dependency: Dependency, breaker: CircuitBreaker) -> None:
        """Create an object that admits messages with the breaker of the dependency."""
        self.dependency = dependency
        self.breaker = breaker
        self.running = 0
        """Messages that were admitted and have not ended."""
        self._waits_since: float | None = None
        """Time of the first message that had to wait under suspicion since the last result."""

    @property
    def is_open(self) -> bool:
        """True unless the breaker is closed. A half-open breaker admits only probes."""
        return self.breaker.state != "closed"

    @property
    def retry_after(self) -> float:
        """Seconds until the next probe. 0 if a message can be admitted now."""
        return self.breaker.retry_after

    def admit(self, seconds: float, *, is_limited: bool = True) -> Permit | None:
        """Return a permit for one message, or None if the message must wait.

        Args:
            seconds: Maximum seconds until the message has ended.
            is_limited: True to admit no more messages than failures are left until the breaker
                opens. False for a message that cannot wait, such as a request.
        """
        breaker = self.breaker
        failed = breaker.consecutive
        limit = self.dependency.consecutive_failures
        if is_limited and failed and failed + self.running >= limit and not self.is_open:
            if not self._is_result_overdue(seconds):
                return None
            self._waits_since = None
        if breaker.retry_after > 0:  # `admit` would count a rejection, but nothing is rejected
            return None
        permit = breaker.admit(seconds)
        if permit is not None:
            self.running += 1
        return permit

    def succeed(self, permit: Permit) -> None:
        """Count a message whose handler succeeded."""
        self._end()
        self.breaker.success(permit)

    def fail(self, permit: Permit, cause: str) -> None:
        """Count a message that failed because of the dependency. `cause` is a name for the log."""
        self._end()
        self.breaker.failure(permit, 0.0, cause)

    def ignore(self, permit: Permit) -> None:
        """Count nothing: the message failed for another reason, or its handler did not run."""
        self._end()
        self.breaker.ignore(permit)

    def _end(self) -> None:
        self.running -= 1
        self._waits_since = None

    def _is_result_overdue(self, seconds: float) -> bool:
        """Return True if messages have waited for a result for the given seconds."""
        now = self.breaker.timer()
        if self._waits_since is None:
            self._waits_since = now
        return now >= self._waits_since + seconds
