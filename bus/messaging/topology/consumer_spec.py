"""The description of one consumer."""

from dataclasses import dataclass

from bus.messaging.body_limit import UNLIMITED_BYTES
from bus.messaging.topology.model import Queue, Topology

__all__ = ["ConsumerSpec"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsumerSpec:
    """A queue to consume, and the options of its consumer."""

    queue: Queue
    topology: Topology
    """The exchanges, queues and bindings to declare before consuming, including the queue."""
    prefetch: int
    """The maximum number of unacked deliveries; 0 means no limit."""
    acks: bool = True
    """False if the broker deletes each message as soon as it is delivered (AMQP `no-ack`)."""
    max_body_bytes: int = UNLIMITED_BYTES
    """Maximum bytes of a body. A larger body is dropped while it arrives (`unread_bytes`)."""
    consumer_timeout: float | None = None
    """Maximum seconds that a delivery can stay unacked. None selects the broker's default."""
