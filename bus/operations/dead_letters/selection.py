"""Dead letters as values, and their selection."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from bus.messaging.envelope import Envelope
from bus.messaging.fault_record import FaultRecord

__all__ = ["EVERYTHING", "DeadLetter", "ObservedValues", "Selection"]


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetter:
    """A dead letter: the message, and the record of its failure."""

    envelope: Envelope
    """Message at its last failure; the repr omits its body."""
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
        """Name and version of the contract; empty if the message has no type."""
        return self.envelope.type

    @property
    def correlation_id(self) -> str:
        """Id that all messages with one first cause share."""
        return self.envelope.correlation_id or self.envelope.id

    @property
    def headers(self) -> Mapping[str, str | int]:
        """Headers without an attribute of the envelope: the failure record's and the sender's."""
        return self.envelope.headers

    @property
    def key(self) -> tuple[str, str, int]:
        """Identity of the dead letter, because a message can be dead-lettered twice."""
        return (self.dead_queue, self.id, self.record.last_at or 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """Criteria for dead letters.

    A dead letter must match every field that is set; of a set, one member must match.
    """

    ids: frozenset[str] = frozenset()
    types: frozenset[str] = frozenset()
    codes: frozenset[str] = frozenset()
    correlation_id: str | None = None
    since: int | None = None
    """Milliseconds since the epoch: dead-lettered then or later."""
    until: int | None = None
    """Milliseconds since the epoch: dead-lettered before then."""
    keys: frozenset[tuple[str, str, int]] | None = None
    """Exactly these dead letters, by `DeadLetter.key`, for example those that a user has seen."""

    @property
    def everything(self) -> bool:
        """True if no criterion is set, so that all dead letters match."""
        return self == EVERYTHING

    def fits(self, letter: DeadLetter) -> bool:
        """Return True if the selection includes the dead letter.

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
        """Return True if the time is within the limits; an unknown time matches no limit."""
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
    """Values of all dead letters that were read, selected or not.

    A criterion without a match may be a typing error.
    """

    types: set[str] = field(default_factory=set)
    codes: set[str] = field(default_factory=set)
    ids: set[str] = field(default_factory=set)
    """Ids of the selection that were seen."""

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
