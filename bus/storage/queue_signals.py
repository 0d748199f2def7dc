"""Signals that the jobs of a queue have changed, for the workers of this process."""

import asyncio

__all__ = ["QueueSignals"]


class QueueSignals:
    """Signals by queue. A signal without a waiter is kept for the next one."""

    def __init__(self) -> None:
        self._waiters: dict[str, set[asyncio.Future[None]]] = {}
        self._pending: set[str] = set()

    def notify(self, queue: str) -> None:
        """Wake all waiters of a queue."""
        waiters = self._waiters.pop(queue, None)
        if not waiters:
            self._pending.add(queue)
            return
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)

    def notify_all(self) -> None:
        """Wake the waiters of every queue."""
        for queue in [*self._waiters]:
            self.notify(queue)

    async def wait(self, queue: str) -> None:
        """Wait for the next signal of a queue. Return at once if one is kept."""
        if queue in self._pending:
            self._pending.discard(queue)
            return
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.setdefault(queue, set()).add(waiter)
        try:
            await waiter
        finally:
            self._waiters.get(queue, set()).discard(waiter)
