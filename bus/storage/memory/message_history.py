"""The last messages of this process, in memory. An operator finds them by their correlation id."""

from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, Final

from bus.messaging.envelope import Envelope
from bus.messaging.ports.history import Action, Entry
from bus.messaging.ports.meter import Reporter
from bus.messaging.service_info import (
    MAX_COUNT,
    MAX_SECONDS,
    MAX_TEXT_LENGTH,
    RememberedMessage,
)
from bus.storage.memory.reporters import Reporters

__all__ = [
    "MAX_ID_LENGTH",
    "MAX_UNVERIFIED",
    "MessageHistory",
    "build_record",
    "clean_text",
    "id_matcher",
]

MAX_UNVERIFIED: Final = 200
"""Maximum number of messages of senders that are not authenticated."""
MAX_ID_LENGTH = 64
"""Maximum number of characters of a header's id or traceparent. A longer one is cut.

AMQP limits the message id, the type and the sender to 255 bytes, so these are not cut.
"""
MIN_PREFIX_LENGTH = 4
"""Minimum number of characters of a part of an id. A shorter text is compared as a whole."""
UUID_LENGTH = 36
_FIELDS = (
    *("action", "id", "type", "source", "at", "seconds", "attempt", "outcome"),
    *("correlation_id", "causation_id", "traceparent", "queue", "tier", "lost_deliveries"),
)
_ID: Final = 1
_AT: Final = 4
_SECONDS: Final = 5
_CORRELATION: Final = 8


class MessageHistory:
    """A `History` of the last messages. If it is full, each message replaces the oldest one.

    Messages of senders that are not authenticated have their own small share. So a client that
    floods a queue cannot remove the other messages.
    """

    def __init__(self, maximum: int, *, max_unverified: int = MAX_UNVERIFIED) -> None:
        """Create an empty history.

        Args:
            maximum: Largest number of messages, of which each takes about half a kilobyte.
            max_unverified: Largest number of messages of senders that are not authenticated.
        """
        self._entries: deque[Entry] = deque(maxlen=maximum)
        self._unverified: deque[Entry] = deque(maxlen=max_unverified)
        self._reporters = Reporters()

    def __len__(self) -> int:
        self._reporters.report()
        return len(self._entries) + len(self._unverified)

    @property
    def complete_since(self) -> float | None:
        """Time in seconds from which on all verified messages are here. None: none was dropped."""
        self._reporters.report()
        entries = self._entries
        if not entries or len(entries) < (entries.maxlen or 0):
            return None
        # Messages are added at their end. While the oldest one was handled, shorter ones can have
        # begun and ended, and be dropped since.
        return entries[0][_AT] + entries[0][_SECONDS]

    def remember(  # noqa: PLR0913 - see `History.remember`
        self,
        action: Action,
        envelope: Envelope,
        at: float,
        seconds: float = 0,
        outcome: str = "ok",
        *,
        queue: str | None = None,
        tier: str | None = None,
        verified: bool = True,
    ) -> None:
        """Add a message; see `History.remember`."""
        entry: Entry = (
            action,
            envelope.id,
            envelope.type,
            envelope.source,
            at,
            seconds,
            envelope.attempt,
            outcome,
            envelope.correlation_id or envelope.id,
            envelope.causation_id,
            envelope.traceparent,
            queue,
            tier,
            0,
        )
        if verified:
            self.add(entry)
        else:
            self._unverified.append(_shorten(entry))

    def add(self, entry: Entry) -> None:
        """Add a message of an authenticated sender."""
        correlation, cause, trace = entry[8:11]
        if (
            len(correlation) > MAX_ID_LENGTH
            or (cause is not None and len(cause) > MAX_ID_LENGTH)
            or (trace is not None and len(trace) > MAX_ID_LENGTH)
        ):
            entry = _shorten(entry)
        self._entries.append(entry)

    def report_before_read(self, reporter: Reporter) -> None:
        """Call `reporter.report()` before each search, as long as the object lives."""
        self._reporters.add(reporter)

    def find(self, text: str) -> tuple[RememberedMessage, ...]:
        """Return the messages with a correlation id or a message id, the oldest first.

        A message without a correlation id has its own id instead. The search reads all entries.

        Args:
            text: The id, or at least the first `MIN_PREFIX_LENGTH` characters of it.
        """
        self._reporters.report()
        matches = id_matcher(text)
        # `list` copies the entries without letting another thread run.
        entries = [*list(self._entries), *list(self._unverified)]
        found = [entry for entry in entries if matches(entry[_CORRELATION], entry[_ID])]
        return tuple(map(_record, sorted(found, key=lambda entry: entry[_AT])))


def id_matcher(text: str) -> Callable[[str, str], bool]:
    """Return a function that compares a correlation id and a message id with a text.

    Args:
        text: An id, or at least the first `MIN_PREFIX_LENGTH` characters of it.
    """
    wanted = text[:MAX_ID_LENGTH]
    if MIN_PREFIX_LENGTH <= len(wanted) < UUID_LENGTH:
        return lambda correlation, message: (
            correlation.startswith(wanted) or message.startswith(wanted)
        )
    return lambda correlation, message: wanted in {correlation, message}


def _shorten(entry: Entry) -> Entry:
    correlation, cause, trace = entry[8:11]
    return (
        *entry[:8],
        correlation[:MAX_ID_LENGTH],
        cause and cause[:MAX_ID_LENGTH],
        trace and trace[:MAX_ID_LENGTH],
        *entry[11:],
    )


def _record(entry: Entry) -> RememberedMessage:
    values = dict(zip(_FIELDS, entry, strict=True))
    return build_record({**values, "at": int(entry[_AT] * 1000)})


def build_record(values: Mapping[str, Any]) -> RememberedMessage:
    """Return the record of a message. Values that its sender chose are cut to the valid range.

    Otherwise one message with a wrong header would prevent the answer with all messages.
    """
    cleaned = {
        name: clean_text(value)[:MAX_TEXT_LENGTH] if isinstance(value, str) else value
        for name, value in values.items()
    }
    for name, maximum in (("attempt", MAX_COUNT), ("seconds", MAX_SECONDS)):
        cleaned[name] = min(max(cleaned[name], 0), maximum)
    return RememberedMessage.model_validate(cleaned)


def clean_text(text: str) -> str:
    """Replace the characters of a text that no encoder accepts."""
    return text.encode(errors="replace").decode()
