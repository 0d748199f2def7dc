"""The concurrency limit of one endpoint."""

import asyncio
from collections import deque
from collections.abc import Callable
from math import inf

from bus.messaging.timers import loop_time

__all__ = ["Slots"]


class Slots:
    """A counting semaphore with a limit that can change, and that can refuse all waiting tasks.

    `asyncio.Semaphore` cannot change its limit, cannot refuse waiting tasks, and has no synchronous
    acquire.
    """

    def __init__(self, limit: int, *, timer: Callable[[], float] = loop_time) -> None:
        """Create `limit` free slots, one for each message that may run at a time.

        Args:
            limit: The maximum number of messages that may run at a time, at least 1.
            timer: Function that returns monotonic seconds.
        """
        self._timer = timer
        self.limit = limit
        """The maximum number of messages that may run at a time now."""
        self.used = 0
        """The number of messages that run now. It exceeds a limit that was lowered recently."""
        self.free_since: float | None = -inf
        """Time since which a slot has been free, by the timer. None if no slot is free."""
        self._waiting: deque[asyncio.Future[bool]] = deque()
        self._is_closed = False

    @property
    def free(self) -> int:
        """The number of slots without a message."""
        return max(0, self.limit - self.used)

    def try_acquire(self) -> bool:
        """Take a slot if one is free, without waiting."""
        if self.used >= self.limit or self._is_closed:
            return False
        self.used += 1
        if self.used >= self.limit:
            self.free_since = None
        return True

    async def acquire(self) -> bool:
        """Wait for a slot. Return False if `refuse_waiters` is called first."""
        turn: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        if self._refuses():
            return False
        self._waiting.append(turn)
        try:
            granted = await turn
        except asyncio.CancelledError:
            if not turn.cancelled() and turn.result():
                self.release()
            raise
        if granted and self._refuses():  # the stop began after the slot was granted
            self.release()
            return False
        return granted

    def _refuses(self) -> bool:
        return self._is_closed

    def release(self) -> None:
        """Give the slot to the task that has waited longest, or make it free."""
        self.used -= 1
        if self._waiting and self.used < self.limit:
            self._grant()
        if self.free_since is None and self.used < self.limit:
            self.free_since = self._timer()

    def resize(self, limit: int) -> None:
        """Change the limit. If it is lower, the messages that run are not cancelled.

        Args:
            limit: The maximum number of messages that may run at a time, at least 1.
        """
        self.limit = limit
        self._grant()
        if self.used >= limit:
            self.free_since = None
        elif self.free_since is None:
            self.free_since = self._timer()

    def _grant(self) -> None:
        """Give free slots to the tasks that have waited longest."""
        while self._waiting and self.used < self.limit:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(True)
                self.used += 1

    def refuse_waiters(self) -> None:
        """Make every current and future `acquire` return False."""
        self._is_closed = True
        for turn in self._waiting:
            if not turn.done():
                turn.set_result(False)
        self._waiting.clear()
