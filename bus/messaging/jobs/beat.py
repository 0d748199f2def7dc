"""The sign of life of an instance, from which the absence of a job is concluded."""

from dataclasses import dataclass

__all__ = ["InstanceBeat"]


@dataclass(frozen=True, slots=True, kw_only=True)
class InstanceBeat:
    """The last sign of life of one instance. Times are in seconds since the epoch."""

    instance: str
    seen_at: float
    recorded_until: float
    """Time before which all jobs that this instance received are recorded, or were requeued."""
