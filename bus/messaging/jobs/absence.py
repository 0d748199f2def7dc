"""The decision that a job was never submitted, from the signs of life of all instances.

ADR 0045 has the reasons. A job that a sender has submitted is in the work queue, in the hands of
an instance, or in the store. A marker that was published after the question shows that the queue
has delivered every earlier job. Later signs of life show that each instance has recorded these.
"""

from collections.abc import Sequence
from enum import Enum

from bus.messaging.jobs.beat import InstanceBeat
from bus.messaging.jobs.markers import MARKER_PREFIX

__all__ = ["LIVE_SECONDS", "Evidence", "judge", "live_instances", "passed_at"]

LIVE_SECONDS = 60.0
"""Seconds without a sign of life after which an instance holds no delivery any more.

The broker closes the connection of a silent process, and requeues its deliveries, in less time.
"""


class Evidence(Enum):
    """Knowledge about the jobs that were submitted before a marker."""

    COMPLETE = "complete"
    """All of them are recorded."""
    INCOMPLETE = "incomplete"
    """An instance can still hold one of them."""
    VOID = "void"
    """An instance has stopped, and may have requeued one of them behind the marker."""


def live_instances(beats: Sequence[InstanceBeat]) -> frozenset[str]:
    """Return the instances that can hold deliveries, from the signs of life at one time."""
    latest = max((beat.seen_at for beat in beats), default=0.0)
    return frozenset(
        beat.instance
        for beat in beats
        if not beat.instance.startswith(MARKER_PREFIX) and beat.seen_at > latest - LIVE_SECONDS
    )


def passed_at(marker: str, beats: Sequence[InstanceBeat]) -> float | None:
    """Return the time of the store when a recorder had completed a marker, or None."""
    return next((beat.seen_at for beat in beats if beat.instance == marker), None)


def judge(before: frozenset[str], beats: Sequence[InstanceBeat], *, passed: float) -> Evidence:
    """Return whether all jobs that were submitted before a marker are recorded.

    Args:
        before: Instances that lived before the marker was published.
        beats: Signs of life now.
        passed: Time of the store when a recorder had completed the marker.
    """
    live = live_instances(beats)
    if not before <= live:
        return Evidence.VOID
    is_complete = all(beat.recorded_until > passed for beat in beats if beat.instance in live)
    return Evidence.COMPLETE if is_complete else Evidence.INCOMPLETE
