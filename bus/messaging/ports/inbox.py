"""The inbox port: the store of handled messages.

The bus uses it for the pattern Idempotent Receiver (Hohpe and Woolf, "Enterprise Integration
Patterns", 2003).
"""

from dataclasses import dataclass
from typing import NamedTuple, Protocol

from bus.messaging.envelope import Envelope

__all__ = ["FactKey", "HandledMessage", "Inbox", "MessageKey"]


class MessageKey(NamedTuple):
    """Key of one message in one work queue.

    All attempts have the same key. If a sender does not know whether a publish succeeded, and
    publishes the message again, the second message has the same key.
    """

    queue: str
    """Work queue, which identifies the handler."""
    source: str
    """Sending service. It is part of the key, because two services may use the same id."""
    id: str
    """Message id."""


class FactKey(NamedTuple):
    """Key of one message for one handler, without the version of the message.

    All versions of an event that a sender publishes for one fact have the same key.
    """

    subscriber: str
    """Service that handles the message."""
    name: str
    """Name of the contract, without the version."""
    subscription: str
    """Name of the subscription of an event. Empty if it has no name, and for a job."""
    source: str
    """Sending service."""
    id: str
    """Message id."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HandledMessage:
    """Message that was handled without an error."""

    reply: Envelope | None = None
    """Reply to an idempotent request, or result of a job.

    If a duplicate of the message arrives, the bus sends the reply or result again.
    """


class Inbox(Protocol):
    """Store of handled messages.

    If a method raises an error, the bus retries the call for five minutes, while the message waits.
    If no retry succeeds, the message is requeued.
    """

    async def find(self, key: MessageKey) -> HandledMessage | None:
        """Return the entry of a message.

        Args:
            key: Key of the message.

        Returns:
            The entry. None if the message was not handled, or if its entry was removed.
        """
        ...

    async def add(self, key: MessageKey, handled: HandledMessage) -> None:
        """Add the entry of a message. The bus acks the message after this method has returned.

        Args:
            key: Key of the message.
            handled: Entry with the reply or result.
        """
        ...


Handled = HandledMessage
"""Former name of `HandledMessage`. The next minor version removes it."""
