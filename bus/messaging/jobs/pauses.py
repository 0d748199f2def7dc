"""A pause of consumers that an operator has requested."""

from dataclasses import dataclass

__all__ = ["Pause"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Pause:
    """A pause of the consumers of one queue, in all instances of the service."""

    queue: str
    """Work queue."""
    by: str
    """Operator that requested it."""
    reason: str
    at: float
    """Time of the request, in seconds since the epoch."""
    until: float | None = None
    """End of the pause, in seconds since the epoch. None: until an operator resumes it."""
