"""The concurrency limit of one endpoint."""

import asyncio
from collections import deque

__all__ = ["Slots"]


class Slots:
    """A counting semaphore in first-come order, whose waiters can be refused when the service stops.

    `asyncio.Semaphore` cannot refuse waiters, and has no synchronous acquire.
    """

    def __init__(self, limit: int) -> None:
        """`limit` is the number of messages that may run at a time."""
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
        """Wait for a slot. Return False if waiters are refused first."""
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
        if granted and self._refuses():  # a slot was released after the stop had begun
            self.release()
            return False
        return granted

    def _refuses(self) -> bool:
        return self._is_closed

    def release(self) -> None:
        """Give the slot to the waiter that has waited longest."""
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(True)
                return
        self.free += 1

    def refuse_waiters(self) -> None:
        """Refuse every waiter, now and later."""
        self._is_closed = True
        for turn in self._waiting:
            if not turn.done():
                turn.set_result(False)
        self._waiting.clear()
