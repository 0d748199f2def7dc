"""The topology that routers require."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from bus.errors import NotFound
from bus.messaging.suggestions import did_you_mean
from bus.messaging.topology.model import Queue, Topology

__all__ = ["RequiredTopology"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RequiredTopology:
    """Topology that the routers of one or more services require."""

    topology: Topology
    services: frozenset[str]
    attempts: Mapping[str, int]
    """Number of attempts for each work queue. The broker's delivery limit must not be lower."""
    timeouts: Mapping[str, float] = field(default_factory=dict)
    """Maximum seconds that the handler can run, for each work queue.

    The broker's consumer timeout must not be shorter.
    """

    def queue(self, name: str) -> Queue:
        """Return the queue with this name.

        Raises:
            NotFound: The routers do not require a queue with this name. The error lists the queues.
        """
        for queue in self.topology.queues:
            if queue.name == name:
                return queue
        names = [queue.name for queue in self.topology.queues]
        hint = did_you_mean(name, names) or f"; the required queues: {', '.join(names) or 'none'}"
        raise NotFound(f"queue {name!r} is not required by these routers{hint}")
