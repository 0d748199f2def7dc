"""Admission of messages for handlers with a dependency: a breaker, and a limit under suspicion.

With `n` handlers that run at the same time, an ordinary breaker admits up to `n - 1` calls more
than its threshold. This object admits fewer messages after the first failure. So without a
success, at most the threshold or `n` calls begin, the larger one. Calls that never end cannot stop
the admission: after the maximum seconds of one message without a result, one more is admitted.

An admitted message can wait for a slot before its handler runs. Failures in that time count for the
message, too, so it is checked again when it begins.
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
        self._waiting = 0
        """The admitted messages that have not begun."""
        self._waits_since: float | None = None
        """Time of the first message that had to wait under suspicion since the last result."""
        self._has_exception = False
        """True if one message may begin although no result has come for too long."""

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
            self._waits_since, self._has_exception = None, True
        if breaker.retry_after > 0:  # `admit` would count a rejection, but nothing is rejected
            return None
        permit = breaker.admit(seconds)
        if permit is not None:
            self.running += 1
        return permit

    def reserve(self, seconds: float) -> Permit | None:
        """Return a permit for a message that begins later, or None if the message must wait.

        Args:
            seconds: Maximum seconds until the message has ended.
        """
        permit = self.admit(seconds)
        if permit is not None:
            self._waiting += 1
        return permit

    def begin(self, permit: Permit) -> bool:
        """Begin a message with the permit of `reserve`.

        Returns:
            False if the permit is void, so that the message needs another one. The failures after
            the permit was given can have opened the breaker, or can do so with the calls that run.
        """
        failed, running = self.breaker.consecutive, self.running - self._waiting
        is_full = failed > 0 and failed + running >= self.dependency.consecutive_failures
        if is_full and self._has_exception:
            is_full = self._has_exception = False
        if is_full or not self.breaker.counts(permit):
            self.withdraw(permit)
            return False
        self._waiting -= 1
        return True

    def withdraw(self, permit: Permit) -> None:
        """End the permit of `reserve` without the begin of its message."""
        self._waiting -= 1
        self.running -= 1  # it has no result, so messages can still wait for an overdue one
        self.breaker.ignore(permit)

    def succeed(self, permit: Permit) -> None:
        """Count a message after its handler has succeeded."""
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
        self._waits_since, self._has_exception = None, False

    def _is_result_overdue(self, seconds: float) -> bool:
        """Return True if messages have waited for a result for the given seconds."""
        now = self.breaker.timer()
        if self._waits_since is None:
            self._waits_since = now
        return now >= self._waits_since + seconds
