"""Detection of publishing channels on which the broker nacks everything, or confirms nothing.

If a queue is full, the broker nacks everything.
It also does so on a channel that was opened at the moment when a quorum queue lost its leader.
The channel is not notified of the new leader (RabbitMQ 3.10.8) while the node of the old one is
down.
A new channel finds the new leader.

If that node hangs, the channel waits for the node's answer and receives no confirms.
On RabbitMQ 4.3.6 that lasts for over a minute, long after other channels have the new leader.
A channel that used the queue before is notified of the new leader after 6 to 10 s.
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
"""Seconds of nothing but nacks after which a channel is abandoned. An election takes less."""
MAX_NACK_SECONDS = 24.0
"""Upper limit of the time with nothing but nacks, in seconds.

It doubles with each abandoned channel, because a new channel does not help if the queue is full.
"""
NEW_CHANNEL_SILENT_SECONDS, SILENT_SECONDS = 4.0, 15.0
"""Seconds without an ack or nack for publishes in flight after which a channel is abandoned.

The first value applies to a channel that has received no ack or nack yet.
"""
MAX_SILENT_SECONDS = 60.0
"""Upper limit of the time without an ack or nack, in seconds.

It doubles with each abandoned channel, because a new channel adds load to a slow broker.
"""


class ConfirmStats:
    """Statistics of the acks and nacks for the publishes of one channel."""

    def __init__(self) -> None:
        self.accepted = False
        """True if an ack has arrived since `NackWatchdog` checked last."""
        self.heard = 0
        """Number of acks and nacks."""
        self.refusing_since: float | None = None
        """Time of the first nack after the last ack, in seconds of the caller's clock."""

    def accept(self) -> None:
        """Record an ack."""
        self.accepted = True
        self.heard += 1
        self.refusing_since = None

    def refuse(self, now: float) -> None:
        """Record a nack."""
        self.heard += 1
        if self.refusing_since is None:
            self.refusing_since = now


class NackWatchdog:
    """A time limit for channels that receive only nacks, kept across their successors."""

    def __init__(self) -> None:
        self._seconds = MIN_NACK_SECONDS

    def is_due(self, stats: ConfirmStats, now: float) -> bool:
        """Return True if the caller must abandon the channel with these statistics."""
        if stats.accepted:
            self._seconds, stats.accepted = MIN_NACK_SECONDS, False
        if stats.refusing_since is None or now - stats.refusing_since < self._seconds:
            return False
        self._seconds = min(2 * self._seconds, MAX_NACK_SECONDS)
        return True


class ConfirmTimeoutWatchdog:
    """A time limit for channels without acks and nacks, kept across their successors."""

    def __init__(self) -> None:
        self._abandoned_count = 0
        self._stats: ConfirmStats | None = None
        self._heard = 0
        self._silent_since: float | None = None

    def is_due(self, stats: ConfirmStats, now: float, *, waiting: bool) -> bool:
        """Return True if the caller must abandon the channel.

        Args:
            stats: Statistics of the channel.
            now: Seconds of the caller's clock.
            waiting: True if publishes are in flight that only the broker delays.
        """
        if stats.heard:
            self._abandoned_count = 0
        if (
            not waiting
            or self._silent_since is None
            or stats is not self._stats
            or stats.heard != self._heard
        ):
            self._stats, self._heard, self._silent_since = (
                stats,
                stats.heard,
                now if waiting else None,
            )
            return False
        if now - self._silent_since < min(
            (SILENT_SECONDS if stats.heard else NEW_CHANNEL_SILENT_SECONDS)
            * 2**self._abandoned_count,
            MAX_SILENT_SECONDS,
        ):
            return False
        self._abandoned_count += 1
        self._silent_since = None
        return True
