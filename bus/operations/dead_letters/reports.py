"""Reports on the replay or the purge of one queue."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from bus.errors import BusError
from bus.operations.dead_letters.selection import ObservedValues

__all__ = ["PurgeReport", "ReplayReport"]


@dataclass(slots=True, kw_only=True)
class ReplayReport:
    """The result of the replay of one queue."""

    matched: int = 0
    replayed: int = 0
    """Number of moved dead letters. In a dry run: number that a replay would move."""
    expired: int = 0
    """Number of expired dead letters that were not moved, because `extend` was not set."""
    needs_operator: int = 0
    """Number of expired dead letters that were not moved, because a signature is missing.

    If a message has a proof, an operator must sign the new expiry time of the message. Either
    `countersign` is not set, or operators have already extended the message too often.
    """
    no_queue: int = 0
    """Number of dead letters that were not moved, because they have no valid work queue.

    The queue is unknown, does not exist, or belongs to another service.
    """
    uncertain: int = 0
    """Number of messages that can exist twice: in the work queue and in the dead-letter queue.

    The broker's confirm did not arrive, or the connection was lost before the ack.
    """
    not_scanned: int = 0
    """Number of dead letters that were not read, because the replay ended early."""
    failure: BusError | None = None
    """Error that ended the replay early. The remaining dead letters stay in their queue."""
    seen: ObservedValues = field(default_factory=ObservedValues, compare=False, repr=False)
    """Types, error codes and ids of the dead letters that were read."""


@contextmanager
def recording_failure(report: "ReplayReport | PurgeReport") -> Iterator[None]:
    """Catch a `BusError` that the `with` block raises. Record the error in the report.

    If the report is still empty, raise the error again.
    """
    try:
        yield
    except BusError as error:
        if report == type(report)():
            raise
        report.failure = report.failure or error


@dataclass(slots=True, kw_only=True)
class PurgeReport:
    """The result of the purge of one queue."""

    matched: int = 0
    deleted: int = 0
    not_scanned: int = 0
    failure: BusError | None = None
