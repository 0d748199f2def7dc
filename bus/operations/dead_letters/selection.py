"""Dead letters as values, and which of them are meant."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from bus.messaging.envelope import Envelope
from bus.messaging.fault_record import FaultRecord

__all__ = ["EVERYTHING", "DeadLetter", "ObservedValues", "Selection"]


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetter:
    """A dead letter: the message, and why it is here."""

    envelope: Envelope
    """The message as it died; its body is not in the repr."""
    record: FaultRecord
    dead_queue: str
    """The queue that it lies in."""
    notes: Mapping[str, Any] = field(default_factory=dict, repr=False)
    """The broker's own headers, such as `x-death`."""

    @property
    def id(self) -> str:
        """The message's id."""
        return self.envelope.id

    @property
    def type(self) -> str:
        """The contract; empty where the message has none."""
        return self.envelope.type

    @property
    def correlation_id(self) -> str:
        """The id of everything that one cause set off."""
        return self.envelope.correlation_id or self.envelope.id

    @property
    def headers(self) -> Mapping[str, str | int]:
        """All headers that have no place of their own in the envelope: the record's, and the sender's."""
        return self.envelope.headers

    @property
    def key(self) -> tuple[str, str, int]:
        """What tells one dead letter from another: a message can die twice."""
        return (self.dead_queue, self.id, self.record.last_at or 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """Which dead letters: those that fit every field that is given. Of the sets one member has to fit."""

    ids: frozenset[str] = frozenset()
    types: frozenset[str] = frozenset()
    codes: frozenset[str] = frozenset()
    correlation_id: str | None = None
    since: int | None = None
    """Milliseconds since the epoch: died then or later."""
    until: int | None = None
    """Milliseconds since the epoch: died before."""
    keys: frozenset[tuple[str, str, int]] | None = None
    """Exactly these, by `Letter.key`: what somebody has looked at before."""

    @property
    def everything(self) -> bool:
        """Whether nothing is given, so that all fit."""
        return self == EVERYTHING

    def fits(self, letter: DeadLetter) -> bool:
        """Whether this one is meant."""
        return (
            _among(letter.id, self.ids)
            and _among(letter.type, self.types)
            and _among(letter.record.code, self.codes)
            and self.correlation_id in {None, letter.correlation_id}
            and self._in_time(letter.record.last_at)
            and (self.keys is None or letter.key in self.keys)
        )

    def _in_time(self, died: int | None) -> bool:
        """One that nobody knows the time of fits no limit."""
        if died is None:
            return self.since is None and self.until is None
        return (self.since is None or died >= self.since) and (
            self.until is None or died < self.until
        )


def _among(value: str, wanted: frozenset[str]) -> bool:
    return not wanted or value in wanted


EVERYTHING = Selection()


@dataclass(slots=True, kw_only=True)
class ObservedValues:
    """What letters that were looked at have, meant or not: what was asked for and none has was perhaps mistyped."""

    types: set[str] = field(default_factory=set)
    codes: set[str] = field(default_factory=set)
    ids: set[str] = field(default_factory=set)
    """Of those that were asked for."""

    def note(self, letter: DeadLetter, wanted: Selection) -> None:
        """Take in one more."""
        self.types.add(letter.type)
        self.codes.add(letter.record.code)
        if letter.id in wanted.ids:
            self.ids.add(letter.id)

    def add(self, others: Iterable["ObservedValues"]) -> "ObservedValues":
        """This, with what others have seen."""
        for each in others:
            self.types |= each.types
            self.codes |= each.codes
            self.ids |= each.ids
        return self
