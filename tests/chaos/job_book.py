"""The book of random programmes: each job as it must be."""

from dataclasses import dataclass

from bus.messaging.jobs.states import JobState

__all__ = ["Entry", "SetClock"]


@dataclass
class SetClock:
    """A clock that a programme sets."""

    now: float = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Entry:
    """A job as the book knows it."""

    state: JobState = "queued"
    token: int = 0
    life: int = 1
    failures: int = 0
    losses: int = 0
    priority: int = 0
    run_at: float = 0
    lease_until: float = 0
    is_cancelled: bool = False
    last_end: tuple[int, JobState] | None = None
