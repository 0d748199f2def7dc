"""The concurrency limit of one endpoint."""

import asyncio
from collections import deque

__all__ = ["Slots"]


class Slots:
    """A counting semaphore that can refuse all waiting tasks when the service stops.

    `asyncio.Semaphore` cannot refuse waiting tasks, and has no synchronous acquire.
    """

    def __init__(self, limit: int) -> None:
        """Create `limit` free slots, one for each message that may run at a time."""
        self.free = limit
        self._waiting: deque[asyncio.Future[bool]] = deque()
        self._is_closed = False

    def try_acquire(self) -> bool:
        """Take a slot if one is free, without waiting."""
        if not self.free or self._is_closed:
            return False
        self.free -= 1
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
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(True)
                return
        self.free += 1

    def refuse_waiters(self) -> None:
        """Make every current and future `acquire` return False."""
        self._is_closed = True
        for turn in self._waiting:
            if not turn.done():
                turn.set_result(False)
        self._waiting.clear()
