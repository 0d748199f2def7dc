"""The watchdog that replaces a publishing channel on which the broker confirms too little.

If a queue is full, the broker nacks everything.
It also does so on a channel that was opened at the moment when a quorum queue lost its leader.
The channel is not notified of the new leader (RabbitMQ 3.10.8) while the node of the old one is
down.
A new channel finds the new leader.

If that node hangs, the channel waits for the node's answer and receives no confirms.
On RabbitMQ 4.3.6 that lasts for over a minute, long after other channels have the new leader.
A channel that used the queue before is notified of the new leader after 6 to 10 s.

A quorum queue without a majority neither confirms nor nacks.
Its abandoned publishes fill the window and keep out those for other queues.
"""

from collections.abc import Callable
from dataclasses import dataclass

__all__ = ["ConfirmStats", "ConfirmWatchdog"]

MIN_NACK_SECONDS = 1.5
"""Seconds of nothing but nacks after which a channel is replaced. An election takes less."""
MAX_NACK_SECONDS = 24.0
"""Upper limit of the time with nothing but nacks, in seconds.

It is far above the first limit, because a new channel does not help if the queue is full.
"""
NEW_CHANNEL_SILENT_SECONDS, SILENT_SECONDS = 4.0, 15.0
"""Seconds without an ack or nack for publishes in flight after which a channel is replaced.

The first value applies to a channel that has received no ack or nack yet.
"""
MAX_SILENT_SECONDS = 60.0
"""Upper limit of the time without an ack or nack, in seconds.

It is above the first limits, because a new channel adds load to a slow broker.
"""
EXHAUSTED_SECONDS = 1.5
"""Seconds with an exhausted window after which a channel is replaced.

A moment is not enough: after an alarm, confirms arrive first for the publishes before the alarm.
"""


class ConfirmStats:
    """Statistics of the acks and nacks for the publishes of one channel."""

    def __init__(self) -> None:
        self.accepted = False
        """True if an ack has arrived."""
        self.heard = 0
        """Number of acks and nacks."""
        self.nacking_since: float | None = None
        """Time of the first nack after the last ack, in seconds of the caller's clock."""
        self.silent_since: float | None = None
        """Time from which publishes have waited without an ack or nack."""
        self.exhausted_since: float | None = None
        """Time from which the window has been exhausted."""
        self._heard_before = 0

    def accept(self) -> None:
        """Record an ack."""
        self.accepted = True
        self.heard += 1
        self.nacking_since = None

    def refuse(self, now: float) -> None:
        """Record a nack."""
        self.heard += 1
        if self.nacking_since is None:
            self.nacking_since = now

    def observe(self, now: float, *, waiting: bool, exhausted: bool) -> None:
        """Record the state of the channel at one check.

        Args:
            now: Seconds of the caller's clock.
            waiting: True if publishes are in flight that only the broker delays.
            exhausted: True if abandoned publishes take too many slots of the window.
        """
        if not waiting:
            self.silent_since = None
        elif self.silent_since is None or self.heard != self._heard_before:
            self.silent_since = now
        self._heard_before = self.heard
        if not exhausted:
            self.exhausted_since = None
        elif self.exhausted_since is None:
            self.exhausted_since = now


@dataclass
class Symptom:
    """A symptom of a channel, and how long a channel may show it."""

    description: str
    since: Callable[[ConfirmStats], float | None]
    """Returns the time from which the channel has shown the symptom, or None."""
    min_seconds: Callable[[ConfirmStats], float]
    """Returns the limit for the first channel, in seconds."""
    max_seconds: float
    """Upper limit for later channels, in seconds."""
    recovered: Callable[[ConfirmStats], bool]
    """Returns True if the channel has shown that a new channel helps."""
    replaced_count: int = 0
    """Number of channels replaced for this symptom since a channel recovered."""

    def is_due(self, stats: ConfirmStats, now: float) -> bool:
        """Return True if the channel has shown the symptom for its limit."""
        if self.recovered(stats):
            self.replaced_count = 0
        since = self.since(stats)
        limit = min(self.min_seconds(stats) * 2**self.replaced_count, self.max_seconds)
        if since is None or now - since < limit:
            return False
        self.replaced_count += 1
        return True


class ConfirmWatchdog:
    """A watchdog over a channel and its successors, with one rule for three symptoms.

    A channel is replaced if it has shown a symptom for the symptom's limit.
    The limit doubles with each replaced channel, up to a maximum.
    It has its first value again after a channel has recovered.
    """

    def __init__(self) -> None:
        self._symptoms = (
            Symptom(
                "the broker does not confirm messages",
                since=lambda stats: stats.exhausted_since,
                min_seconds=lambda _: EXHAUSTED_SECONDS,
                max_seconds=EXHAUSTED_SECONDS,
                recovered=lambda stats: stats.heard > 0,
            ),
            Symptom(
                "the broker does not confirm messages",
                since=lambda stats: stats.silent_since,
                min_seconds=lambda stats: (
                    SILENT_SECONDS if stats.heard else NEW_CHANNEL_SILENT_SECONDS
                ),
                max_seconds=MAX_SILENT_SECONDS,
                recovered=lambda stats: stats.heard > 0,
            ),
            Symptom(
                "the broker nacks every message",
                since=lambda stats: stats.nacking_since,
                min_seconds=lambda _: MIN_NACK_SECONDS,
                max_seconds=MAX_NACK_SECONDS,
                recovered=lambda stats: stats.accepted,
            ),
        )

    def due_symptom(self, stats: ConfirmStats, now: float) -> str | None:
        """Return a description of the symptom for which the caller must replace the channel.

        Args:
            stats: Statistics of the channel, observed just now.
            now: Seconds of the caller's clock.
        """
        return next((each.description for each in self._symptoms if each.is_due(stats, now)), None)
