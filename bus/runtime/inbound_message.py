"""An incoming message as the inbound stages pass it on, and the result of handling it."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from bus.messaging.envelope import Envelope
from bus.messaging.fault_record import REPLAYS
from bus.messaging.ports.transport import Delivery
from bus.runtime.poison_isolation import PoisonCandidate
from bus.runtime.slots import Slots

__all__ = [
    "NO_ACTION",
    "REQUEUE",
    "SETTLED",
    "HandlingResult",
    "InboundHandler",
    "InboundMessage",
    "InboundStage",
    "RedeliveryKey",
    "immediately",
    "pass_through",
]

RedeliveryKey = tuple[str, str, int, str | int, int]
"""(sender, message id, attempt, replay count, collision number).

A retry or a replay gets a new key, a redelivery does not. The collision number separates different
messages that carry the same id.
"""


class InboundMessage:
    """One message, and every delivery of it that has arrived since its handling began."""

    __slots__ = ("candidate", "deliveries", "envelope", "key", "payload", "slots")

    def __init__(self, delivery: Delivery) -> None:
        envelope = delivery.envelope
        self.envelope = envelope
        """The message as received. Retries and dead letters copy it, so it stays encrypted."""
        self.payload = envelope
        """The message that the handler receives, decrypted."""
        self.deliveries = [delivery]
        self.key: RedeliveryKey = (
            envelope.source,
            envelope.id,
            envelope.attempt,
            envelope.headers.get(REPLAYS, 0),
            0,
        )
        self.candidate: PoisonCandidate | None = None
        """Set if the message is processed alone."""
        self.slots: Slots | None = None
        """Set if the message has a slot, which it holds until it is settled."""

    @property
    def is_deferred(self) -> bool:
        """True while the message waits to be processed alone."""
        return self.candidate is not None and self.candidate.is_waiting

    async def ack(self) -> bool:
        """Ack every delivery. Return True if the broker received the ack of at least one."""
        acked = False
        for delivery in self.deliveries:  # a redelivery can join during the loop
            acked |= await delivery.ack()
        return acked

    async def requeue(self) -> None:
        """Return every delivery to the broker."""
        for delivery in self.deliveries:  # as above
            await delivery.requeue()


# Not frozen, unlike all other values: creating a frozen one costs more than the rest of settlement.
@dataclass(slots=True, kw_only=True)
class HandlingResult:
    """The result of one attempt to handle a message."""

    reply: Envelope | None = None
    error: BaseException | None = None
    unauthorized: bool = False
    """True if the message was rejected: its sender is unknown, or has no right to send it."""


SETTLED = HandlingResult()
"""Everything is done except the ack."""
REQUEUE = HandlingResult()
"""The message was not handled, and another consumer may handle it.

Only stages before `deduplicate` may return it: that stage records a result without an error.
"""
NO_ACTION = HandlingResult()
"""Another delivery of the message is in flight and settles this one too, or the message is no
longer held by this process."""

InboundHandler = Callable[[InboundMessage], Awaitable[HandlingResult]]
"""A function that handles an inbound message."""
InboundStage = Callable[[InboundHandler], InboundHandler]
"""A layer around an `InboundHandler`: a middleware for messages that still have their
deliveries."""


async def immediately(result: HandlingResult) -> HandlingResult:
    """Return `result`: the handling of a message that goes no further."""
    return result


def pass_through(handler: InboundHandler) -> InboundHandler:
    """Return `handler`: the stage of an endpoint that does not need it."""
    return handler
