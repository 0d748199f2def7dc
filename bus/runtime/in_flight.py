"""The messages of one endpoint that are being handled now."""

import asyncio
from collections import OrderedDict

from bus.messaging.envelope import Envelope
from bus.runtime.held_messages import HeldMessage, HoldEnd
from bus.runtime.inbound_message import HandlingResult, InboundMessage, RedeliveryKey
from bus.security.message_security import Guard

__all__ = ["MAX_REMEMBERED_RESULTS", "InFlight"]

MAX_REMEMBERED_RESULTS = 1_000
"""The maximum number of results that are kept for redeliveries. If there are more, the oldest
result is removed."""


IDENTITY_FIELDS = (
    *("source", "type", "body", "proof", "authorization", "reply_to"),
    *("correlation_id", "in_reply_to", "expires", "expiry_override", "headers", "fault"),
)
"""The attributes that the inbound stages check. If two envelopes are equal in all these attributes,
the stages accept or reject the two envelopes alike."""


class InFlight:
    """The messages that one endpoint is handling, and results that are kept for redeliveries."""

    def __init__(self, guard: Guard) -> None:
        """Create an empty registry. `guard` checks copies that the sender signed again."""
        self._guard = guard
        self.open: dict[RedeliveryKey, InboundMessage] = {}
        """The messages that are being handled, by key."""
        self.tasks: dict[InboundMessage, asyncio.Task[None]] = {}
        """The tasks that handle messages. Each redelivery has a separate task."""
        self.results: OrderedDict[RedeliveryKey, HandlingResult] = OrderedDict()
        """The results that are kept for redeliveries, by key. Empty unless a settlement or ack
        failed."""
        self.held: dict[HeldMessage, None] = {}
        """The messages that wait for a dependency."""
        self.refuses_holds: HoldEnd | None = None
        """End of each hold that begins now. None: messages can be held."""
        self.stuck: set[InboundMessage] = set()
        """The jobs whose handlers do not end although their tasks were cancelled."""
        self._collisions = 0
        self._deferred = asyncio.Event()
        self.is_stopping = False
        """True if the service is stopping. Messages that must be processed alone are requeued."""

    def finish(self, message: InboundMessage) -> None:
        """Remove a message, and release its slot.

        If the message was processed alone, end its turn.
        """
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
        """If `message` and `first` are the same message, add the deliveries to `first`.

        A different message with the same id gets a new key, and is handled separately. So does a
        request that the caller has sent again after it received the reply to `first`.

        Returns:
            True if `first` also settles the added deliveries. False if the messages are different.
        """
        if not _is_new_attempt(message, first) and self._is_same_message(
            first.envelope, message.envelope
        ):
            first.deliveries += message.deliveries
            return True
        self._collisions += 1
        message.key = (*message.key[:4], self._collisions)
        self.open[message.key] = message
        return False

    def _is_same_message(self, first: Envelope, second: Envelope) -> bool:
        """Return True if both envelopes are one message, and not two messages with the same id.

        A sender that does not know whether its message has arrived sends a copy. The copy is signed
        and encrypted again, so its attributes differ. The copy counts as the same message only if
        the two envelopes are authorized.
        """
        if all(getattr(first, name) == getattr(second, name) for name in IDENTITY_FIELDS):
            return True
        if (first.source, first.type) != (second.source, second.type):
            return False
        return self._guard.authorize(first) is None and self._guard.authorize(second) is None

    def remember(self, message: InboundMessage, result: HandlingResult) -> None:
        """Keep a result for the redelivery of the message.

        The result of an unauthorized message is not kept. The redelivery can be authorized after
        new keys were fetched. Or the unauthorized message was forged, and the redelivery is the
        genuine message.
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
        """Return the unfinished tasks of messages that do not wait to be processed alone."""
        return [
            task
            for message, task in self.tasks.items()
            if not message.is_deferred and not task.done()
        ]

    def end_holds(self, end: HoldEnd) -> None:
        """End the hold of each message that waits for a dependency, now and from now on."""
        if not self.is_stopping or end is HoldEnd.REQUEUE:
            self.refuses_holds = end
        for held in [*self.held]:
            held.end(end)

    def permit_holds(self) -> None:
        """Let messages wait for a dependency again, after `end_holds`."""
        if not self.is_stopping:
            self.refuses_holds = None

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
        # The task of each remaining message was cancelled before the task started.
        for message in [*self.tasks]:
            await message.requeue()
            self.finish(message)

    def refuse_deferred(self) -> None:
        """Requeue the messages that wait to be processed alone."""
        for message in self.tasks:
            if message.candidate is not None:
                message.candidate.refuse()

    def stop(self) -> None:
        """Requeue the messages that wait to be processed alone, or for a dependency.

        After this call, further messages that must wait are requeued immediately.
        """
        self.is_stopping = True
        self.refuse_deferred()
        self.end_holds(HoldEnd.REQUEUE)

    def cancel(self) -> int:
        """Cancel every task, and return the number of tasks."""
        for task in self.tasks.values():
            task.cancel()
        return len(self.tasks)


def _is_new_attempt(message: InboundMessage, first: InboundMessage) -> bool:
    """Return True if a request was sent again after an error, and `first` has this error.

    The caller can receive the error reply before this process has acked `first`. The ack must not
    end the new attempt, too.
    """
    is_request = message.envelope.role == "request"
    return is_request and first.is_settling and not message.deliveries[0].redelivered
