"""Retention of the rows of a store, and the result of its pruning."""

from dataclasses import dataclass

from bus.messaging.jobs.states import JobState

__all__ = ["PruneReport", "Retention"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Retention:
    """Seconds for which a store keeps the data of messages that were handled."""

    succeeded: float
    """Payload and result of a succeeded or cancelled job."""
    failed: float
    """Payload and result of a failed job."""
    inbox: float
    """Entry of a handled message in the inbox. It must be longer than any copy can live."""

    def seconds_by_state(self) -> tuple[tuple[JobState, float], ...]:
        """Return the seconds for each final state."""
        return (
            ("succeeded", self.succeeded),
            ("cancelled", self.succeeded),
            ("failed", self.failed),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class PruneReport:
    """The data that a pruning has removed, or would remove."""

    payloads: int = 0
    """Jobs that lost payload and result."""
    jobs: int = 0
    """Rows of jobs that were deleted, because no copy of the message can be alive."""
    inbox: int = 0
    """Entries of handled messages that were deleted."""

    @property
    def is_empty(self) -> bool:
        """True if nothing was removed."""
        return self == PruneReport()
