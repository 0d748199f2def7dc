"""The history port: the last messages of a process, by which an operator finds a message."""

from typing import Literal, Protocol

from bus.messaging.envelope import Envelope
from bus.messaging.ports.meter import Reporter

__all__ = ["Action", "Entry", "History"]

Action = Literal["sent", "handled", "retried", "dead-lettered", "refused"]
"""Action of a process on a message."""


Entry = tuple[
    str,
    str,
    str,
    str,
    float,
    float,
    int,
    str,
    str,
    str | None,
    str | None,
    str | None,
    str | None,
    int,
]
"""One message: action, id, type, source, begin and duration in seconds, attempt, outcome,
correlation id, causation id, traceparent, queue, tier and lost deliveries.

A tuple takes less memory and time than an object with attributes.
"""


class History(Protocol):
    """Interface to which the bus reports each message. It keeps no payload and no error text.

    An implementation never raises an error and never blocks, and its memory is bounded.
    """

    def remember(  # noqa: PLR0913 - the parts of one entry, without an object for each message
        self,
        action: Action,
        envelope: Envelope,
        at: float,
        seconds: float = 0,
        outcome: str = "ok",
        *,
        queue: str | None = None,
        tier: str | None = None,
        verified: bool = True,
    ) -> None:
        """Add a message.

        Args:
            action: Action of this process on the message.
            envelope: The message. Only its ids, its type and its sender are kept.
            at: The begin of the action, in seconds since the epoch.
            seconds: The duration of the action.
            outcome: `ok`, or the code of an error.
            queue: The queue from which the message came.
            tier: The retry tier in which the message waits.
            verified: False if the sender is not authenticated. Such entries cannot displace others.
        """
        ...

    def add(self, entry: Entry) -> None:
        """Add a message of an authenticated sender."""
        ...

    def report_before_read(self, reporter: Reporter) -> None:
        """Call `reporter.report()` before anything reads the history, while the object lives."""
        ...
