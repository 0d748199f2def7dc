"""What the sender and the workers of a campaign say to each other, and how the work is told to go."""

from bus import Event, Job, contract

__all__ = ["SERVICE", "Happened", "Work"]

SERVICE = "chaos"


@contract("chaos.work", version=1)
class Work(Job[None]):
    """A job of a campaign."""

    number: int
    seconds: float = 0
    """How long it takes."""
    failures: int = 0
    """So many attempts fail before one succeeds."""
    hopeless: bool = False
    """Whether no attempt can succeed: it belongs into the dead letters."""


@contract("chaos.happened", version=1)
class Happened(Event):
    """An event of a campaign; the same as a job."""

    number: int
    seconds: float = 0
    failures: int = 0
    hopeless: bool = False
