"""Reports: what a replay or a purge of one queue did."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from bus.errors import BusError
from bus.operations.dead_letters.selection import ObservedValues

__all__ = ["PurgeReport", "ReplayReport"]


@dataclass(slots=True, kw_only=True)
class ReplayReport:
    """What a replay of one queue did."""

    matched: int = 0
    replayed: int = 0
    """In a dry run: that would be."""
    expired: int = 0
    """Refused, since nobody should act on them any more."""
    needs_operator: int = 0
    """Expired, and refused more time: no operator signed for it, or they did so too often."""
    no_queue: int = 0
    """Refused, since their work queue is not there."""
    uncertain: int = 0
    """Sent, and possibly still among the dead letters as well: the connection went before confirm or ack was sure."""
    not_scanned: int = 0
    """Not looked at: too many that are not meant, or stay, were in front of them."""
    failure: BusError | None = None
    """What ended it early; what was not moved is where it was."""
    seen: ObservedValues = field(default_factory=ObservedValues, compare=False, repr=False)
    """What all that were looked at have, meant or not."""


@contextmanager
def recording_failure(done: "ReplayReport | PurgeReport") -> Iterator[None]:
    """What ends it early is in the result, once there is one."""
    try:
        yield
    except BusError as error:
        if done == type(done)():
            raise
        done.failure = done.failure or error


@dataclass(slots=True, kw_only=True)
class PurgeReport:
    """What a purge of one queue did."""

    matched: int = 0
    deleted: int = 0
    not_scanned: int = 0
    failure: BusError | None = None
