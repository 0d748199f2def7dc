"""Markers: messages of a service to its own work queue, which follow all earlier jobs there."""

from bus.messaging.envelope import Envelope, new_id

__all__ = ["MARKER_PREFIX", "MARKER_SECONDS", "MARKER_TYPE", "is_marker_of", "new_marker"]

MARKER_PREFIX = "marker:"
"""Prefix of the id of a marker. A recorder writes a sign of life with this id as its name.

The name of an instance begins with the name of its host, which has no colon.
"""
MARKER_TYPE = "bus.marker.v1"
"""Type of a marker. No contract has it, because no service may be called `bus`."""
MARKER_SECONDS = 3600
"""Seconds for which the proof of a marker is valid.

The broker does not drop a marker after this time. It would dead-letter it, and a dead letter
should be a message that an operator looks at.
"""


def new_marker(service: str, *, now: float) -> Envelope:
    """Return a marker. Its id is also the name of its sign of life.

    Args:
        service: Service that sends the marker to a work queue of its own.
        now: Seconds since the epoch.
    """
    id_ = f"{MARKER_PREFIX}{new_id()}"
    return Envelope(
        id=id_,
        type=MARKER_TYPE,
        role="job",
        source=service,
        body=b"{}",
        timestamp=int(now),
        correlation_id=id_,
        expires=int((now + MARKER_SECONDS) * 1000),
    )


def is_marker_of(service: str, envelope: Envelope) -> bool:
    """Return True if a message claims to be a marker of this service."""
    return envelope.source == service and envelope.id.startswith(MARKER_PREFIX)
