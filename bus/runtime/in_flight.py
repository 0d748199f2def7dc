"""The messages of one endpoint that are being handled now."""

import asyncio
from collections import OrderedDict
from collections.abc import Callable

from bus.messaging.envelope import Envelope
from bus.runtime.inbound_message import HandlingResult, InboundMessage, MessageKey

__all__ = ["MAX_REMEMBERED_RESULTS", "InFlight"]

MAX_REMEMBERED_RESULTS = 1_000
"""Results remembered for redeliveries; the oldest are forgotten beyond it. The number of messages in
flight at a time is bounded by the prefetch, and is smaller."""


class InFlight:
    """The messages that run or wait here, and the results of messages whose ack could not be written."""

    def __init__(self, is_same: Callable[[Envelope, Envelope], bool]) -> None:
        """`is_same` tells whether two envelopes with one key are the same message."""
        self._is_same = is_same
        self.open: dict[MessageKey, InboundMessage] = {}
        """The first delivery of each message."""
        self.tasks: dict[InboundMessage, asyncio.Task[None]] = {}
        """The task of each delivery."""
        self.results: OrderedDict[MessageKey, HandlingResult] = OrderedDict()
        """The kept results, by message. It is almost always empty."""
        self._collisions = 0
        self._deferred = asyncio.Event()
        self.is_stopping = False
        """True when messages that have not started must be requeued."""

    def finish(self, message: InboundMessage) -> None:
        """Remove a message, and release what it holds."""
        if self.open.get(message.key) is message:
            del self.open[message.key]
        self.tasks.pop(message, None)
        if message.slots is not None:
            message.slots.release()
        if message.candidate is not None:
            message.candidate.end()

    # --- Redeliveries ---

    def join(self, message: InboundMessage, first: InboundMessage) -> bool:
        """Return True if the message joined `first`, an earlier delivery of it, which settles both.

        Another message with the same id gets a key of its own.
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

        The result of an unauthorized message is not kept: it may be authorized the next time, and
        the genuine message can have the same id.
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
        """Return the kept result of this message, and forget it."""
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
        """Return the tasks of messages that have started, or wait for a slot, and have not ended."""
        return [
            task
            for message, task in self.tasks.items()
            if not message.is_deferred and not task.done()
        ]

    async def wait_idle(self) -> None:
        """Wait until no message runs, except those that wait to be processed alone."""
        while tasks := self.running():
            self._deferred.clear()
            deferred = asyncio.ensure_future(self._deferred.wait())
            try:
                await asyncio.wait([*tasks, deferred], return_when=asyncio.FIRST_COMPLETED)
            finally:
                deferred.cancel()

    async def drain(self) -> None:
        """Wait until every message has ended. Those that wait to be processed alone are requeued."""
        await self.wait_idle()
        self.refuse_deferred()
        if tasks := [task for task in self.tasks.values() if not task.done()]:
            await asyncio.wait(tasks)
        for message in [*self.tasks]:  # cancelled before its task could start
            await message.requeue()
            self.finish(message)

    def refuse_deferred(self) -> None:
        """Requeue the messages that wait to be processed alone."""
        for message in self.tasks:
            if message.candidate is not None:
                message.candidate.refuse()

    def stop(self) -> None:
        """Requeue the messages that wait to be processed alone, now and later."""
        self.is_stopping = True
        self.refuse_deferred()

    def cancel(self) -> int:
        """Cancel every task, and return their number."""
        for task in self.tasks.values():
            task.cancel()
        return len(self.tasks)
