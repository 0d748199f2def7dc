"""An inbox in memory. The bus uses it to detect messages that were already handled.

The pattern is the Idempotent Receiver (Hohpe and Woolf, "Enterprise Integration Patterns", 2003).
"""

from collections import OrderedDict

from bus.messaging.ports.inbox import HandledMessage, MessageKey

__all__ = ["MemoryInbox"]

MAX_MESSAGES = 20_000
"""Maximum number of entries in an inbox."""
MAX_BYTES = 16 * 1024 * 1024
"""Maximum number of bytes of all replies in an inbox."""


class MemoryInbox:
    """Inbox in the memory of this process.

    If a limit is exceeded, the oldest entries are removed. All entries are lost when the process
    ends.
    """

    def __init__(self, *, most_messages: int = MAX_MESSAGES, most_bytes: int = MAX_BYTES) -> None:
        """Create an empty inbox.

        Args:
            most_messages: Largest number of entries.
            most_bytes: Largest number of bytes in the bodies of all replies. Each entry takes about
                300 bytes in addition.
        """
        self._most_messages = most_messages
        self._most_bytes = most_bytes
        self._bytes = 0
        self._entries: OrderedDict[MessageKey, HandledMessage] = OrderedDict()

    def __len__(self) -> int:
        return len(self._entries)

    async def find(self, key: MessageKey) -> HandledMessage | None:
        """Return the entry of a message. Return None if the inbox has no entry."""
        return self._entries.get(key)

    async def add(self, key: MessageKey, handled: HandledMessage) -> None:
        """Add the entry of a message. Leave out the result if the message is a job.

        A stored result is needed only if the process ends before it sends the result. The inbox's
        entries are lost when the process ends, so it does not store results.
        """
        if handled.reply is not None and handled.reply.role == "update":
            handled = HandledMessage()
        previous = self._entries.pop(key, None)
        if previous is not None:
            self._bytes -= _size(previous)
        self._entries[key] = handled
        self._bytes += _size(handled)
        while len(self._entries) > self._most_messages or (
            self._bytes > self._most_bytes and self._entries
        ):
            _, oldest = self._entries.popitem(last=False)
            self._bytes -= _size(oldest)


def _size(handled: HandledMessage) -> int:
    return len(handled.reply.body) if handled.reply is not None else 0
