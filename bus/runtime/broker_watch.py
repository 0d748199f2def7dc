"""The watch of the broker: it tells whether the broker answered while a request waited."""

import asyncio
from collections.abc import Callable
from contextvars import Context
from typing import Final

from bus.messaging.ports.liveness import Liveness

__all__ = ["RECOVERY_SECONDS", "BrokerWatch"]

RECOVERY_SECONDS: Final = 2.0
"""Seconds after a trouble of the broker in which services recover. A service can need as long to
connect again, and its queue can be full of the requests of the time before."""
CHECKS_PER_REQUEST: Final = 4
"""Number of checks in the shortest configured time of a request."""
MIN_INTERVAL_SECONDS: Final = 0.02
STALL_SECONDS: Final = 0.1
"""Delay of a check from which this process itself may have been blocked."""


class BrokerWatch:
    """The watch of the connection that carries requests and replies.

    While a request waits, the watch checks the connection several times within the shortest
    configured time. If the connection was silent since the last check, the watch pings the broker.
    If the ping has no answer at the next check, the broker is in trouble. Without waiting requests,
    the watch does nothing.
    """

    def __init__(self, liveness: Liveness, is_waiting: Callable[[], bool]) -> None:
        """Create a watch that does nothing yet.

        Args:
            liveness: Transport of the process.
            is_waiting: Function that returns True if a request waits for its reply.
        """
        self._liveness, self._is_waiting = liveness, is_waiting
        self._context = Context()
        """Context of the timers. A copy of a caller's would keep the message that it handles."""
        self._interval = float("inf")
        self.timer: asyncio.TimerHandle | None = None
        """The next check. None if no request has waited since the last check."""
        self._checked_at = self._troubled_at = self._silent_at = float("-inf")
        self._pinged_at: float | None = None
        self._first_connected_at: float | None = None
        """Time of the first connection. The other services have not lost theirs, so it is not a
        recovery: a process that has just started retries its requests, too."""

    def expect(self, seconds: float) -> None:
        """Let the watch judge requests that wait for `seconds`."""
        interval = max(MIN_INTERVAL_SECONDS, seconds / CHECKS_PER_REQUEST)
        if interval < self._interval:
            self._interval = interval
            if self.timer is not None:
                self.close()
                self.start()

    def start(self) -> None:
        """Begin to check, because a request waits. Call this method if `timer` is None."""
        loop = asyncio.get_running_loop()
        if self._first_connected_at is None:
            self._first_connected_at = self._liveness.connected_at
        self._checked_at, self._pinged_at = loop.time(), None
        self._start_timer(loop)

    def close(self) -> None:
        """Stop to check."""
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None

    def answered_since(self, sent_at: float, now: float) -> bool:
        """Return True if the broker answered all the time since a request was sent.

        Args:
            sent_at: Time at which the request was sent, in seconds of the event loop's clock.
            now: Time at which the request timed out.
        """
        self._note_trouble(now)
        connected_at = self._liveness.connected_at
        if connected_at is None:
            return False
        recovered_from = self._troubled_at
        if connected_at != self._first_connected_at:
            recovered_from = max(connected_at, recovered_from)
        return sent_at >= recovered_from + RECOVERY_SECONDS

    def was_silent_since(self, sent_at: float) -> bool:
        """Return True if a ping had no answer since a request was sent.

        Call this method after `answered_since`. It returns False if the broker has only recovered
        since then, or if this process was blocked.
        """
        return self._silent_at >= sent_at

    def _check(self, loop: asyncio.AbstractEventLoop) -> None:
        self.timer = None
        if not self._is_waiting():
            return
        now = loop.time()
        self._note_trouble(now)
        self._checked_at = now
        if self._pinged_at is not None and self._liveness.heard_at > self._pinged_at:
            self._pinged_at = None
        if self._pinged_at is None and now - self._liveness.heard_at >= self._interval:
            self._pinged_at = now
            self._liveness.ping()
        self._start_timer(loop)

    def _start_timer(self, loop: asyncio.AbstractEventLoop) -> None:
        self.timer = loop.call_later(self._interval, self._check, loop, context=self._context)

    def _note_trouble(self, now: float) -> None:
        """Note the time if the broker does not answer a ping, or if this process was blocked."""
        pinged_at = self._pinged_at
        is_silent = (
            pinged_at is not None
            and self._liveness.heard_at <= pinged_at
            and now - pinged_at >= self._interval
        )
        if is_silent:
            self._silent_at = self._troubled_at = now
        elif now - self._checked_at > self._interval + STALL_SECONDS:
            self._troubled_at = now
