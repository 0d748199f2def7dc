"""Dead letters, and the criteria that select dead letters."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from bus.messaging.envelope import Envelope
from bus.messaging.fault_record import FaultRecord

__all__ = ["EVERYTHING", "DeadLetter", "LetterKey", "ObservedValues", "Selection"]

LetterKey = tuple[str, str, str, int]
"""(dead-letter queue, sender, message id, time of the last failure in ms since the epoch)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetter:
    """A message that failed, and the record of the failure."""

    envelope: Envelope
    """State of the message at the last failure. The repr of the envelope omits the body."""
    record: FaultRecord
    dead_queue: str
    """Queue that holds the dead letter."""
    notes: Mapping[str, Any] = field(default_factory=dict, repr=False)
    """Headers that the broker added, such as `x-death`."""

    @property
    def id(self) -> str:
        """Id of the message."""
        return self.envelope.id

    @property
    def type(self) -> str:
        """Name and version of the contract. Empty if the message has no type."""
        return self.envelope.type

    @property
    def correlation_id(self) -> str:
        """Correlation id. A first message and all messages that it causes have the same id."""
        return self.envelope.correlation_id or self.envelope.id

    @property
    def headers(self) -> Mapping[str, str | int]:
        """Headers of the envelope. They contain the failure record and the sender's headers."""
        return self.envelope.headers

    @property
    def key(self) -> LetterKey:
        """Identity of the dead letter.

        The message id alone is not unique, because a message can be dead-lettered twice, and two
        senders can use the same id.
        """
        return (self.dead_queue, self.envelope.source, self.id, self.record.last_at or 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """Criteria that select dead letters.

    A dead letter must match every criterion that is given. If a criterion has several values, one
    matching value is sufficient.
    """

    ids: frozenset[str] = frozenset()
    types: frozenset[str] = frozenset()
    codes: frozenset[str] = frozenset()
    correlation_id: str | None = None
    since: int | None = None
    """Select messages dead-lettered at this time or later, in milliseconds since the epoch."""
    until: int | None = None
    """Select messages dead-lettered before this time, in milliseconds since the epoch."""
    keys: frozenset[LetterKey] | None = None
    """Select only dead letters with these values of `DeadLetter.key`.

    A command uses these keys to replay exactly the dead letters that the user has seen.
    """

    @property
    def everything(self) -> bool:
        """True if no criterion is set. All dead letters match."""
        return self == EVERYTHING

    def fits(self, letter: DeadLetter) -> bool:
        """Return True if the dead letter matches all criteria.

        Args:
            letter: Dead letter to compare with the criteria.
        """
        return (
            _matches(letter.id, self.ids)
            and _matches(letter.type, self.types)
            and _matches(letter.record.code, self.codes)
            and self.correlation_id in {None, letter.correlation_id}
            and self._matches_time(letter.record.last_at)
            and (self.keys is None or letter.key in self.keys)
        )

    def _matches_time(self, died: int | None) -> bool:
        """Return True if the time is within the limits `since` and `until`.

        If the time is unknown, return True only if both limits are None.
        """
        if died is None:
            return self.since is None and self.until is None
        return (self.since is None or died >= self.since) and (
            self.until is None or died < self.until
        )


def _matches(value: str, accepted: frozenset[str]) -> bool:
    return not accepted or value in accepted


EVERYTHING = Selection()


@dataclass(slots=True, kw_only=True)
class ObservedValues:
    """Types, error codes and ids of the dead letters that were read.

    The types and codes of all dead letters are recorded, even if a dead letter is not selected. A
    command uses these values to report a criterion that matches no dead letter, such as a
    misspelled type.
    """

    types: set[str] = field(default_factory=set)
    codes: set[str] = field(default_factory=set)
    ids: set[str] = field(default_factory=set)
    """Ids that `Selection.ids` contains and that were found in the queue."""

    def note(self, letter: DeadLetter, selection: Selection) -> None:
        """Record the values of one dead letter."""
        self.types.add(letter.type)
        self.codes.add(letter.record.code)
        if letter.id in selection.ids:
            self.ids.add(letter.id)

    def add(self, others: Iterable["ObservedValues"]) -> "ObservedValues":
        """Add the values of other queues, and return this object."""
        for values in others:
            self.types |= values.types
            self.codes |= values.codes
            self.ids |= values.ids
        return self
