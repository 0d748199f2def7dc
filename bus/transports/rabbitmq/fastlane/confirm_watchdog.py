"""A channel on which the broker nacks everything, or says nothing.

A queue that is full does the first, and so does a channel that was opened in the moment in which a quorum queue lost its leader: it
does not hear who leads now (RabbitMQ 3.10.8), for as long as the node is away on which the old one was. A new channel asks.

Where that node hangs, such a channel waits for its answer and says nothing: on RabbitMQ 4.3.6 for over a minute, after others
had a leader again for long. A channel that knew the queue before hears of the new leader, after 6 to 10 s.
"""

__all__ = [
    "MAX_NACK_SECONDS",
    "MIN_NACK_SECONDS",
    "NEW_CHANNEL_SILENT_SECONDS",
    "SILENT_SECONDS",
    "ConfirmStats",
    "ConfirmTimeoutWatchdog",
    "NackWatchdog",
]

MIN_NACK_SECONDS = 1.5
"""Seconds of nothing but nacks after which a channel is given up. An election takes less."""
MAX_NACK_SECONDS = 24.0
"""Seconds; twice as long each time, since a new channel does not help a queue that is full."""
NEW_CHANNEL_SILENT_SECONDS, SILENT_SECONDS = 4.0, 15.0
"""Seconds without an ack or nack for what is under way after which a channel is given up: one that has never said anything, and another."""
MAX_SILENT_SECONDS = 60.0
"""Seconds; twice as long each time, since a new channel does not help a broker that is slow, and costs it more."""


class ConfirmStats:
    """What the broker has said of what was published on one channel."""

    def __init__(self) -> None:
        self.accepted = False
        """Whether it took anything."""
        self.heard = 0
        """Acks and nacks."""
        self.refusing_since: float | None = None
        """The moment of the first nack after the last ack, in seconds of the caller's clock."""

    def accept(self) -> None:
        """An ack."""
        self.accepted = True
        self.heard += 1
        self.refusing_since = None

    def refuse(self, now: float) -> None:
        """A nack."""
        self.heard += 1
        if self.refusing_since is None:
            self.refusing_since = now


class NackWatchdog:
    """When such a channel is given up, and its successors."""

    def __init__(self) -> None:
        self._seconds = MIN_NACK_SECONDS

    def is_due(self, verdicts: ConfirmStats, now: float) -> bool:
        """Whether this channel is to be given up."""
        if verdicts.accepted:
            self._seconds, verdicts.accepted = MIN_NACK_SECONDS, False
        if verdicts.refusing_since is None or now - verdicts.refusing_since < self._seconds:
            return False
        self._seconds = min(2 * self._seconds, MAX_NACK_SECONDS)
        return True


class ConfirmTimeoutWatchdog:
    """When a channel is given up that says nothing, and its successors."""

    def __init__(self) -> None:
        self._given_up = 0
        self._verdicts: ConfirmStats | None = None
        self._heard = 0
        self._since: float | None = None

    def is_due(self, verdicts: ConfirmStats, now: float, *, waiting: bool) -> bool:
        """Whether this channel is to be given up. `waiting`: whether something is under way on it that nothing holds up but the broker."""
        if verdicts.heard:
            self._given_up = 0
        if (
            not waiting
            or self._since is None
            or verdicts is not self._verdicts
            or verdicts.heard != self._heard
        ):
            self._verdicts, self._heard, self._since = (
                verdicts,
                verdicts.heard,
                now if waiting else None,
            )
            return False
        if now - self._since < min(
            (SILENT_SECONDS if verdicts.heard else NEW_CHANNEL_SILENT_SECONDS) * 2**self._given_up,
            MAX_SILENT_SECONDS,
        ):
            return False
        self._given_up += 1
        self._since = None
        return True
