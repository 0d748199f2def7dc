"""Idempotent Receiver (Hohpe and Woolf, "Enterprise Integration Patterns", 2003): what was handled has no second effect."""

from collections import OrderedDict

from bus.messaging.ports.inbox import HandledMessage, MessageKey

__all__ = ["MemoryInbox"]

MAX_MESSAGES = 20_000
MAX_BYTES = 16 * 1024 * 1024


class MemoryInbox:
    """An `Inbox` in this process: it forgets the oldest beyond its limits, and everything when the process ends."""

    def __init__(self, *, most_messages: int = MAX_MESSAGES, most_bytes: int = MAX_BYTES) -> None:
        """`most_bytes` is for the bodies of replies; a message takes about 300 bytes beside its own."""
        self._most_messages = most_messages
        self._most_bytes = most_bytes
        self._bytes = 0
        self._known: OrderedDict[MessageKey, HandledMessage] = OrderedDict()

    def __len__(self) -> int:
        return len(self._known)

    async def find(self, key: MessageKey) -> HandledMessage | None:
        """What is known of `key`."""
        return self._known.get(key)

    async def add(self, key: MessageKey, handled: HandledMessage) -> None:
        """Remember, but for a job's result: whoever could ask this store has told it, or is about to."""
        if handled.reply is not None and handled.reply.role == "update":
            handled = HandledMessage()
        before = self._known.pop(key, None)
        if before is not None:
            self._bytes -= _size(before)
        self._known[key] = handled
        self._bytes += _size(handled)
        while len(self._known) > self._most_messages or (
            self._bytes > self._most_bytes and self._known
        ):
            _, oldest = self._known.popitem(last=False)
            self._bytes -= _size(oldest)


def _size(handled: HandledMessage) -> int:
    return len(handled.reply.body) if handled.reply is not None else 0
