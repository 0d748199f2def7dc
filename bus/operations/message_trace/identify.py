"""The correlation id that a user means by a full or an abbreviated id."""

from collections.abc import Iterator
from dataclasses import dataclass

from bus.errors import InvalidArgument
from bus.messaging.labels import one_line
from bus.operations.message_trace.model import TraceSources
from bus.operations.message_trace.ownership import believed
from bus.operations.message_trace.remembered_ids import is_same_id

__all__ = ["MIN_ID_LENGTH", "Identified", "identify"]

MIN_ID_LENGTH = 4
"""Minimum number of characters of an abbreviated id."""
MAX_SHOWN = 5
"""Maximum number of correlation ids that the error about an ambiguous id shows."""
MAX_SHOWN_LENGTH = 80


@dataclass(frozen=True, slots=True, kw_only=True)
class Identified:
    """The correlation id that a text means."""

    correlation_id: str
    message_id: str | None = None
    """Id of the message if the text is its id, and not a correlation id."""


def identify(text: str, sources: TraceSources) -> Identified | None:
    """Return the correlation id that `text` means, or None if no source has a match.

    A full id precedes an abbreviated one, and a correlation id precedes the id of a message.

    Args:
        text: Correlation id or message id, or at least its first `MIN_ID_LENGTH` characters.
        sources: Records that can match.

    Raises:
        InvalidArgument: The text is too short, or begins the ids of several correlation ids.
    """
    pairs = list(_ids(sources))
    if any(is_same_id(correlation_id, text) for _, correlation_id in pairs):
        return Identified(correlation_id=text)
    full = {correlation_id for message_id, correlation_id in pairs if message_id == text}
    if len(full) == 1:
        return Identified(correlation_id=full.pop(), message_id=text)
    begun = {
        correlation_id: None if correlation_id.startswith(text) else message_id
        for message_id, correlation_id in sorted(pairs)
        if correlation_id.startswith(text) or message_id.startswith(text)
    }
    shown = repr(one_line(text[:MAX_SHOWN_LENGTH]))
    if len(text) < MIN_ID_LENGTH:
        # Instances do not search for so short a beginning, so an empty answer tells nothing.
        raise InvalidArgument(
            f"id {shown} is too short. Write at least {MIN_ID_LENGTH} characters."
        )
    if not begun:
        return None
    if len(begun) > 1:
        names = ", ".join(one_line(each[:MAX_SHOWN_LENGTH]) for each in sorted(begun)[:MAX_SHOWN])
        more = f" and {len(begun) - MAX_SHOWN} more" if len(begun) > MAX_SHOWN else ""
        raise InvalidArgument(
            f"id {shown} is ambiguous, it matches the correlation ids {names}{more}. "
            "Write one of them."
        )
    [(correlation_id, message_id)] = begun.items()
    return Identified(correlation_id=correlation_id, message_id=message_id)


def _ids(sources: TraceSources) -> Iterator[tuple[str, str]]:
    """Yield the message id and the correlation id of each record."""
    # A record about another service's message could make an id ambiguous.
    for _, message in believed(sources):
        yield message.id, message.correlation_id or message.id
    for letter in sources.letters or ():
        yield letter.id, letter.correlation_id
