"""The inbox port: the store of handled messages (Hohpe and Woolf, "Enterprise Integration Patterns", 2003, Idempotent Receiver)."""

from dataclasses import dataclass
from typing import NamedTuple, Protocol

from bus.messaging.envelope import Envelope

__all__ = ["HandledMessage", "Inbox", "MessageKey"]


class MessageKey(NamedTuple):
    """One message for one of its handlers. All attempts at it share the key, and so do copies that its sender made when it was in doubt."""

    queue: str
    """The work queue, which stands for the handler."""
    source: str
    """The sending service: another's messages may have the same id."""
    id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class HandledMessage:
    """A message that was handled well."""

    reply: Envelope | None = None
    """What an idempotent request was answered, or a job that somebody waits for; its duplicate gets the same."""


class Inbox(Protocol):
    """The store of what was handled. While one raises the message waits; after five minutes it goes back to the broker."""

    async def find(self, key: MessageKey) -> HandledMessage | None:
        """What is known of `key`; None where it was not handled, or that is forgotten."""
        ...

    async def add(self, key: MessageKey, handled: HandledMessage) -> None:
        """Remember, before the message is acked."""
        ...


Handled = HandledMessage
"""The former name of `HandledMessage`; the next minor version removes it."""
