"""Contracts between the sender and the workers of a campaign."""

from bus import Event, Job, contract

__all__ = ["SERVICE", "Happened", "Work"]

SERVICE = "chaos"


@contract("chaos.work", version=1)
class Work(Job[None]):
    """A job of a campaign; its fields control the work."""

    number: int
    seconds: float = 0
    """Duration of the work."""
    failures: int = 0
    """Number of attempts that fail before one succeeds."""
    hopeless: bool = False
    """True if no attempt can succeed, so that the message must be dead-lettered."""


@contract("chaos.happened", version=1)
class Happened(Event):
    """An event of a campaign, with the fields of `Work`."""

    number: int
    seconds: float = 0
    failures: int = 0
    hopeless: bool = False
