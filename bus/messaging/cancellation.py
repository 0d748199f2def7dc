"""Request to cancel the work of a handler, which the handler can see."""

import asyncio

__all__ = ["Cancellation"]


class Cancellation:
    """Request to cancel a job, or its absence. Any thread may read `is_requested`."""

    __slots__ = ("_event", "is_requested")

    def __init__(self) -> None:
        self.is_requested = False
        """True after the request."""
        self._event = asyncio.Event()

    def request(self) -> None:
        """Tell the handler. A second call has no effect."""
        self.is_requested = True
        self._event.set()

    async def wait(self) -> None:
        """Wait for the request."""
        await self._event.wait()
