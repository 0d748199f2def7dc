"""Notices of the changes in the model broker, so that a test can wait without polling."""

import asyncio

__all__ = ["Activity"]


class Activity:
    """The changes of one model broker and of its clients."""

    def __init__(self) -> None:
        self._waiters: set[asyncio.Future[None]] = set()

    def changed(self) -> None:
        """Report a change. Call it after the change."""
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)
        self._waiters.clear()

    async def wait(self) -> None:
        """Wait for the next change, without a time limit."""
        waiter = asyncio.get_running_loop().create_future()
        self._waiters.add(waiter)
        try:
            await waiter
        finally:
            self._waiters.discard(waiter)
