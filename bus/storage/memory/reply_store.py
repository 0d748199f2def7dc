"""The replies that a process keeps for its callers (`cache=` of a contract)."""

import asyncio
from collections import OrderedDict
from contextvars import Context
from dataclasses import dataclass
from typing import Final

from bus.messaging.envelope import Envelope
from bus.messaging.ports.reply_store import ReplyKey

__all__ = ["ENTRY_BYTES", "MAX_BYTES", "MAX_ENTRIES", "MemoryReplyStore"]

MAX_ENTRIES: Final = 10_000
"""Default for the maximum number of replies."""
MAX_BYTES: Final = 32 * 1024 * 1024
"""Default for the maximum number of bytes of all replies."""
ENTRY_BYTES: Final = 1_500
"""Bytes that a reply takes in addition to its body. Most of them are its key and its timer."""


@dataclass(slots=True)
class _Entry:
    reply: Envelope
    size: int
    timer: asyncio.TimerHandle


class MemoryReplyStore:
    """Store of replies in the memory of this process.

    If a limit is exceeded, the replies that were not read for the longest time are removed. A timer
    removes each reply at its end, so that confidential data does not stay in memory.
    """

    def __init__(self, *, max_entries: int = MAX_ENTRIES, max_bytes: int = MAX_BYTES) -> None:
        """Create an empty store.

        Args:
            max_entries: Maximum number of replies. With 0 no reply is kept.
            max_bytes: Maximum number of bytes of all replies, with `ENTRY_BYTES` for each.
        """
        self._max_entries = max_entries
        self._max_bytes = max_bytes
        self._entries: OrderedDict[ReplyKey, _Entry] = OrderedDict()
        self._context = Context()
        """Context of the timers. A copy of the caller's would keep the message that it handles."""
        self.bytes = 0
        """Estimated number of bytes of all replies."""

    def __len__(self) -> int:
        return len(self._entries)

    def find(self, key: ReplyKey) -> Envelope | None:
        """Return the kept reply to a request. Return None if there is none, or if it is too old."""
        entry = self._entries.get(key)
        if entry is None:
            return None
        if entry.timer.when() <= asyncio.get_running_loop().time():  # its timer is late
            self._remove(key)
            return None
        self._entries.move_to_end(key)
        return entry.reply

    def add(self, key: ReplyKey, reply: Envelope, seconds: float) -> None:
        """Keep a reply for a number of seconds, in place of an earlier reply with this key.

        A reply that is larger than the limit of all replies is not kept.
        """
        self._remove(key)
        size = len(reply.body) + ENTRY_BYTES
        if size > self._max_bytes or not self._max_entries:
            return
        while len(self._entries) >= self._max_entries or self.bytes + size > self._max_bytes:
            self._remove(next(iter(self._entries)))
        timer = asyncio.get_running_loop().call_later(
            seconds, self._remove, key, context=self._context
        )
        self._entries[key] = _Entry(reply, size, timer)
        self.bytes += size

    def clear(self) -> None:
        """Remove all replies."""
        for key in [*self._entries]:
            self._remove(key)

    def _remove(self, key: ReplyKey) -> None:
        entry = self._entries.pop(key, None)
        if entry is not None:
            entry.timer.cancel()
            self.bytes -= entry.size
