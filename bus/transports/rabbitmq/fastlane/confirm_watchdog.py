"""A watchdog that decides from acks and nacks whether a publishing channel must be replaced.

The watchdog detects three cases:

- The broker nacks every message. One cause is a full queue. Another cause is that the channel was
  opened at the moment when a quorum queue lost its leader. In RabbitMQ 3.10.8 that channel does not
  find the new leader while the node of the old leader is down. A new channel finds the new leader.
- The node with the leader of a quorum queue hangs. The channel waits for that node and receives no
  confirms. On RabbitMQ 4.3.6 the wait lasts for over a minute, although other channels already use
  the new leader. A channel that has used the queue before finds the new leader after 6 to 10 s.
- A quorum queue without a majority sends neither acks nor nacks. The unconfirmed publishes to this
  queue fill the window, and block publishes to other queues.
"""

from collections.abc import Callable
from dataclasses import dataclass

__all__ = ["ConfirmStats", "ConfirmWatchdog"]

MIN_NACK_SECONDS = 1.5
"""Initial time limit for a channel that receives only nacks, in seconds.

After this time, the channel is replaced. The election of a new leader takes less time.
"""
MAX_NACK_SECONDS = 24.0
"""Maximum time limit for a channel that receives only nacks, in seconds.

The limit doubles with each replaced channel, up to this value. The value is much higher than
`MIN_NACK_SECONDS`, because a new channel does not help if the queue is full.
"""
NEW_CHANNEL_SILENT_SECONDS, SILENT_SECONDS = 4.0, 15.0
"""Initial time limits for a channel that receives neither acks nor nacks, in seconds.

If publishes wait for this time, the channel is replaced. The first value applies to a channel that
has never received an ack or nack. The second value applies to all other channels.
"""
MAX_SILENT_SECONDS = 60.0
"""Maximum time limit for a channel that receives neither acks nor nacks, in seconds.

The limit doubles with each replaced channel, up to this value. The value is high because each new
channel adds load to a slow broker.
"""
EXHAUSTED_SECONDS = 1.5
"""Time limit for a channel with an exhausted window, in seconds.

After this time, the channel is replaced. A single check is not enough. After an alarm, the window
may be exhausted for a short time, until the confirms of earlier publishes have arrived.
"""


class ConfirmStats:
    """Statistics of the acks and nacks for the publishes of one channel."""

    def __init__(self) -> None:
        self.accepted = False
        """True if an ack has arrived."""
        self.heard = 0
        """Number of acks and nacks that have arrived."""
        self.nacking_since: float | None = None
        """Time of the first nack that arrived after the last ack, or None."""
        self.silent_since: float | None = None
        """Time since which publishes wait without an ack or nack, or None if no publish waits."""
        self.exhausted_since: float | None = None
        """Time at which the window became exhausted, or None if it is not exhausted."""
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
            now: Current time on the caller's clock, in seconds.
            waiting: True if publishes wait for confirms, the socket is not full and there is no
                alarm.
            exhausted: True if timed-out and cancelled publishes occupy too many slots of the
                window.
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
    """A symptom of a faulty channel. After the symptom's time limit, the channel is replaced."""

    description: str
    since: Callable[[ConfirmStats], float | None]
    """Returns the time at which the symptom began, or None if there is no symptom."""
    min_seconds: Callable[[ConfirmStats], float]
    """Returns the initial time limit in seconds."""
    max_seconds: float
    """Maximum time limit in seconds."""
    recovered: Callable[[ConfirmStats], bool]
    """Returns True if the channel works again. If the result is True, `factor` is set to 1."""
    factor: int = 1
    """Multiplier of the initial time limit. It doubles with each replaced channel."""

    def is_due(self, stats: ConfirmStats, now: float) -> bool:
        """Return True if the symptom has lasted for the time limit. If so, double the limit."""
        if self.recovered(stats):
            self.factor = 1
        since = self.since(stats)
        limit = min(self.min_seconds(stats) * self.factor, self.max_seconds)
        if since is None or now - since < limit:
            return False
        if limit < self.max_seconds:
            self.factor *= 2
        return True


class ConfirmWatchdog:
    """A watchdog that checks a publishing channel, and the channels that replace it.

    It applies one rule to three symptoms. Each symptom has a time limit.
    A channel that shows a symptom for its time limit must be replaced.
    The limit doubles with each replaced channel, up to a maximum.
    When a channel has recovered, the limit is reset to its initial value.
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
        """Return the symptom for which the caller must replace the channel, or None.

        Args:
            stats: Statistics of the channel. Call `stats.observe` first.
            now: Current time on the caller's clock, in seconds.
        """
        return next((each.description for each in self._symptoms if each.is_due(stats, now)), None)
