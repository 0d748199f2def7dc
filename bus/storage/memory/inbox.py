"""Idempotent Receiver (Hohpe and Woolf, "Enterprise Integration Patterns", 2003): what was handled has no second effect."""

from collections import OrderedDict
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from bus.messaging.envelope import Envelope

__all__ = ["Handled", "Inbox", "MemoryInbox", "MessageKey"]

MOST_MESSAGES = 20_000
MOST_BYTES = 16 * 1024 * 1024


class MessageKey(NamedTuple):
    """One message for one of its handlers. All attempts at it share the key, and so do copies that its sender made when it was in doubt."""

    queue: str
    """The work queue, which stands for the handler."""
    source: str
    """The sending service: another's messages may have the same id."""
    id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Handled:
    """A message that was handled well."""

    reply: Envelope | None = None
    """What an idempotent request was answered, or a job that somebody waits for; its duplicate gets the same."""


class Inbox(Protocol):
    """The store of what was handled. While one raises the message waits; after five minutes it goes back to the broker."""

    async def find(self, key: MessageKey) -> Handled | None:
        """What is known of `key`; None where it was not handled, or that is forgotten."""
        ...

    async def add(self, key: MessageKey, handled: Handled) -> None:
        """Remember, before the message is acked."""
        ...


class MemoryInbox:
    """An `Inbox` in this process: it forgets the oldest beyond its limits, and everything when the process ends."""

    def __init__(self, *, most_messages: int = MOST_MESSAGES, most_bytes: int = MOST_BYTES) -> None:
        """`most_bytes` is for the bodies of replies; a message takes about 300 bytes beside its own."""
        self._most_messages = most_messages
        self._most_bytes = most_bytes
        self._bytes = 0
        self._known: OrderedDict[MessageKey, Handled] = OrderedDict()

    def __len__(self) -> int:
        return len(self._known)

    async def find(self, key: MessageKey) -> Handled | None:
        """What is known of `key`."""
        return self._known.get(key)

    async def add(self, key: MessageKey, handled: Handled) -> None:
        """Remember, but for a job's result: whoever could ask this store has told it, or is about to."""
        if handled.reply is not None and handled.reply.traffic == "update":
            handled = Handled()
        before = self._known.pop(key, None)
        if before is not None:
            self._bytes -= _size(before)
        self._known[key] = handled
        self._bytes += _size(handled)
        while len(self._known) > self._most_messages or (self._bytes > self._most_bytes and self._known):
            _, oldest = self._known.popitem(last=False)
            self._bytes -= _size(oldest)


def _size(handled: Handled) -> int:
    return len(handled.reply.body) if handled.reply is not None else 0
