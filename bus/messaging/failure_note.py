"""Failure note: the message that a handler failed on, and the location of the failure.

Python shows the notes of an exception below its traceback.
"""

from contextlib import suppress

from bus.messaging.envelope import Envelope
from bus.messaging.failure_location import failure_location
from bus.messaging.labels import message_label

__all__ = ["FailureNote", "add_failure_note"]


class FailureNote(str):
    """A note that the bus added. Its class separates it from the notes of other code."""

    __slots__ = ()


def add_failure_note(error: BaseException, envelope: Envelope) -> None:
    """Add a note to an error, such as `billing.quote.v1 a067102e: failed at service.py:43 quote`.

    An error has only the note of its last failure. A handler can raise one object many times, and
    its notes must not grow. A class of errors that refuses notes gets no note.

    Args:
        error: Error that a handler raised.
        envelope: Message that was handled.
    """
    subject, where = message_label(envelope), failure_location(error)
    note = FailureNote(f"{subject}: failed at {where}" if where else f"{subject}: failed")
    with suppress(Exception):  # a user's class of errors, such as a frozen dataclass
        notes = getattr(error, "__notes__", None)
        if isinstance(notes, list):
            notes[:] = [other for other in notes if not isinstance(other, FailureNote)]
        error.add_note(note)
