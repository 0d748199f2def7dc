"""A channel on which the broker nacks everything.

A queue that is full does that, and so does a channel that was opened in the moment in which a quorum queue lost its leader: it
does not hear who leads now (RabbitMQ 3.10.8), for as long as the node is away on which the old one was. A new channel asks.
"""

__all__ = ["LONGEST", "SHORTEST", "GivingUp", "Verdicts"]

SHORTEST = 1.5
"""Seconds of nothing but nacks after which a channel is given up. An election takes less."""
LONGEST = 24.0
"""Seconds; twice as long each time, since a new channel does not help a queue that is full."""


class Verdicts:
    """What the broker has said of what was published on one channel."""

    def __init__(self) -> None:
        self.accepted = False
        """Whether it took anything."""
        self.refusing_since: float | None = None
        """The moment of the first nack after the last ack, in seconds of the caller's clock."""

    def accept(self) -> None:
        """An ack."""
        self.accepted = True
        self.refusing_since = None

    def refuse(self, now: float) -> None:
        """A nack."""
        if self.refusing_since is None:
            self.refusing_since = now


class GivingUp:
    """When such a channel is given up, and its successors."""

    def __init__(self) -> None:
        self._seconds = SHORTEST

    def is_due(self, verdicts: Verdicts, now: float) -> bool:
        """Whether this channel is to be given up."""
        if verdicts.accepted:
            self._seconds, verdicts.accepted = SHORTEST, False
        if verdicts.refusing_since is None or now - verdicts.refusing_since < self._seconds:
            return False
        self._seconds = min(2 * self._seconds, LONGEST)
        return True
