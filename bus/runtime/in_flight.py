"""The messages of one endpoint that are being handled now."""

import asyncio
from collections import OrderedDict
from collections.abc import Callable

from bus.messaging.envelope import Envelope
from bus.runtime.inbound_message import HandlingResult, InboundMessage, MessageKey

__all__ = ["MAX_REMEMBERED_RESULTS", "InFlight"]

MAX_REMEMBERED_RESULTS = 1_000
"""The maximum number of results that are kept for redeliveries. Beyond it, the oldest result is
removed. The number of messages in flight is smaller, because the prefetch limits it."""


class InFlight:
    """The messages that one endpoint is handling, and results that are kept for redeliveries."""

    def __init__(self, is_same: Callable[[Envelope, Envelope], bool]) -> None:
        """Create an empty registry. `is_same` compares two envelopes that have the same key."""
        self._is_same = is_same
        self.open: dict[MessageKey, InboundMessage] = {}
        """The messages that are being handled, by key."""
        self.tasks: dict[InboundMessage, asyncio.Task[None]] = {}
        """The tasks that handle deliveries. A redelivery has a task too."""
        self.results: OrderedDict[MessageKey, HandlingResult] = OrderedDict()
        """The results that are kept for redeliveries, by key. It is almost always empty."""
        self._collisions = 0
        self._deferred = asyncio.Event()
        self.is_stopping = False
        """True if the service stops. A message that must be processed alone is then requeued."""

    def finish(self, message: InboundMessage) -> None:
        """Remove a message, release its slot, and end its turn to be processed alone."""
        if self.open.get(message.key) is message:
            del self.open[message.key]
        self.tasks.pop(message, None)
        if message.slots is not None:
            message.slots.release()
        if message.candidate is not None:
            message.candidate.end()

    # --- Redeliveries ---

    def join(self, message: InboundMessage, first: InboundMessage) -> bool:
        """Add the deliveries of `message` to `first`, if both are the same message.

        A different message with the same id gets a new key, and is handled separately.

        Returns:
            True if `first` settles both, False if they are different messages.
        """
        if self._is_same(first.envelope, message.envelope):
            first.deliveries += message.deliveries
            return True
        self._collisions += 1
        message.key = (*message.key[:4], self._collisions)
        self.open[message.key] = message
        return False

    def remember(self, message: InboundMessage, result: HandlingResult) -> None:
        """Keep a result for the redelivery of the message.

        The result of an unauthorized message is not kept. The next check may authorize the message,
        or the genuine message may have the same id.
        """
        if result.unauthorized:
            return
        self.results[message.key] = result
        if len(self.results) > MAX_REMEMBERED_RESULTS:
            self.results.popitem(last=False)

    def remembers(self, message: InboundMessage) -> bool:
        """Return True if a result of this message is kept."""
        return message.key in self.results

    def recall(self, message: InboundMessage) -> HandlingResult | None:
        """Remove and return the kept result of this message, or None."""
        return self.results.pop(message.key, None)

    # --- Waiting and stopping ---

    def defer(self) -> None:
        """Report that a message now waits to be processed alone."""
        self._deferred.set()

    @property
    def has_deferred(self) -> bool:
        """True if a message waits to be processed alone."""
        return any(message.is_deferred for message in self.tasks)

    def running(self) -> list[asyncio.Task[None]]:
        """Return the unfinished tasks, without messages that wait to be processed alone."""
        return [
            task
            for message, task in self.tasks.items()
            if not message.is_deferred and not task.done()
        ]

    async def wait_idle(self) -> None:
        """Wait until no message runs. Messages that wait to be processed alone do not count."""
        while tasks := self.running():
            self._deferred.clear()
            deferred = asyncio.ensure_future(self._deferred.wait())
            try:
                await asyncio.wait([*tasks, deferred], return_when=asyncio.FIRST_COMPLETED)
            finally:
                deferred.cancel()

    async def drain(self) -> None:
        """Wait until every message has ended.

        Messages that wait to be processed alone are requeued.
        """
        await self.wait_idle()
        self.refuse_deferred()
        if tasks := [task for task in self.tasks.values() if not task.done()]:
            await asyncio.wait(tasks)
        for message in [*self.tasks]:  # its task was cancelled before it started
            await message.requeue()
            self.finish(message)

    def refuse_deferred(self) -> None:
        """Requeue the messages that wait to be processed alone."""
        for message in self.tasks:
            if message.candidate is not None:
                message.candidate.refuse()

    def stop(self) -> None:
        """Requeue all messages that wait, or later would wait, to be processed alone."""
        self.is_stopping = True
        self.refuse_deferred()

    def cancel(self) -> int:
        """Cancel every task, and return the number of tasks."""
        for task in self.tasks.values():
            task.cancel()
        return len(self.tasks)
