"""The inbox port: the store of handled messages.

It is the basis of the Idempotent Receiver (Hohpe and Woolf, "Enterprise Integration Patterns",
2003).
"""

from dataclasses import dataclass
from typing import NamedTuple, Protocol

from bus.messaging.envelope import Envelope

__all__ = ["HandledMessage", "Inbox", "MessageKey"]


class MessageKey(NamedTuple):
    """Key of one message for one of its handlers.

    All attempts share the key. Copies that the sender made because the first publish was in doubt
    share it too.
    """

    queue: str
    """Work queue, which identifies the handler."""
    source: str
    """Sending service. A message of another service may have the same id."""
    id: str
    """Message id."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HandledMessage:
    """Message that was handled without an error."""

    reply: Envelope | None = None
    """Reply to an idempotent request, or result of a job, which a duplicate receives too."""


class Inbox(Protocol):
    """Store of handled messages.

    If a method raises, the bus retries it, and the message waits. After five minutes the message is
    requeued.
    """

    async def find(self, key: MessageKey) -> HandledMessage | None:
        """Return the entry of a message.

        Args:
            key: Key of the message.

        Returns:
            The entry. None if the message was not handled, or if the entry was removed since.
        """
        ...

    async def add(self, key: MessageKey, handled: HandledMessage) -> None:
        """Add the entry of a message. The bus acks the message after that.

        Args:
            key: Key of the message.
            handled: Entry with the reply or result.
        """
        ...


Handled = HandledMessage
"""Former name of `HandledMessage`. The next minor version removes it."""
