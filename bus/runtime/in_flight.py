"""The messages of one endpoint that are being handled now."""

import asyncio
from collections import OrderedDict

from bus.messaging.envelope import Envelope
from bus.runtime.inbound_message import HandlingResult, InboundMessage, RedeliveryKey
from bus.security.message_security import Guard

__all__ = ["MAX_REMEMBERED_RESULTS", "InFlight"]

MAX_REMEMBERED_RESULTS = 1_000
"""Results remembered for redeliveries; the oldest are forgotten beyond it. The number of
messages in flight at a time is bounded by the prefetch, and is smaller."""


IDENTITY_FIELDS = (
    *("source", "type", "body", "proof", "authorization", "reply_to"),
    *("correlation_id", "in_reply_to", "expires", "expiry_override", "headers", "fault"),
)
"""The attributes by which one of two envelopes could be rejected while the other is not."""


class InFlight:
    """The messages that run or wait here, and the results that wait for a redelivery."""

    def __init__(self, guard: Guard) -> None:
        """`guard` authorizes copies of a message that their sender signed again."""
        self._guard = guard
        self.open: dict[RedeliveryKey, InboundMessage] = {}
        """The first delivery of each message."""
        self.tasks: dict[InboundMessage, asyncio.Task[None]] = {}
        """The task of each delivery."""
        self.results: OrderedDict[RedeliveryKey, HandlingResult] = OrderedDict()
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
        self.release_slot(message)
        if message.candidate is not None:
            message.candidate.end()

    def release_slot(self, message: InboundMessage) -> None:
        """Release the slot of a message, if the message has one."""
        if message.slots is not None:
            message.slots.release()
            message.slots = None

    # --- Redeliveries ---

    def join(self, message: InboundMessage, first: InboundMessage) -> bool:
        """Return True if the message joined `first`, an earlier delivery of it, which settles both.

        Another message with the same id gets a key of its own.
        """
        if self._is_same_message(first.envelope, message.envelope):
            first.deliveries += message.deliveries
            return True
        self._collisions += 1
        message.key = (*message.key[:4], self._collisions)
        self.open[message.key] = message
        return False

    def _is_same_message(self, first: Envelope, second: Envelope) -> bool:
        """Return True if `second` is a copy of `first`, and not another message with the same id.

        A sender that does not know whether its message arrived sends a copy, signed and encrypted
        again. The copy differs, so both envelopes must be authorized.
        """
        if all(getattr(first, name) == getattr(second, name) for name in IDENTITY_FIELDS):
            return True
        if (first.source, first.type) != (second.source, second.type):
            return False
        return self._guard.authorize(first) is None and self._guard.authorize(second) is None

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
        """Return the unfinished tasks of messages, except those that wait to run alone."""
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
        """Wait until every message has ended.

        Those that wait to be processed alone are requeued.
        """
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
