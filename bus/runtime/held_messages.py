"""Messages that a process holds in hand while a dependency is down.

The messages stay unacked, so a full prefetch stops the broker from delivering more messages.
"""

import asyncio
from enum import Enum

from bus.messaging.resilience.circuit_breaker import Permit

__all__ = ["HeldMessage", "HoldEnd"]


class HoldEnd(Enum):
    """Reason why a held message does not start."""

    RETURN = "return"
    """Return by a retry tier: the message was held for too long, or the consumer is paused."""
    REQUEUE = "requeue"
    """Requeue, because the service is stopping."""


class HeldMessage:
    """A message that waits for a permit."""

    __slots__ = ("_end", "arrival", "sender", "until")

    def __init__(self, until: float, sender: str, arrival: int) -> None:
        """Create a message that is held until a time of the event loop at the latest.

        Args:
            until: Time of the event loop at which the hold ends.
            sender: Service that the message names as its sender. It is not authenticated yet.
            arrival: Number of the message in the order of arrival.
        """
        self.until, self.sender, self.arrival = until, sender, arrival
        self._end: asyncio.Future[Permit | HoldEnd] = asyncio.get_running_loop().create_future()

    @property
    def is_waiting(self) -> bool:
        """True until the message starts, returns or is requeued, or its task is cancelled."""
        return not self._end.done()

    def end(self, end: Permit | HoldEnd) -> None:
        """End the hold. A second call has no effect."""
        if not self._end.done():
            self._end.set_result(end)

    async def wait(self) -> Permit | HoldEnd:
        """Wait for the end of the hold."""
        return await self._end

    @property
    def permit(self) -> Permit | None:
        """The permit that the message has received but, after a cancellation, cannot use."""
        if self._end.cancelled() or not self._end.done():
            return None
        end = self._end.result()
        return None if isinstance(end, HoldEnd) else end
