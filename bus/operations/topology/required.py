"""What routers need in the broker."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from bus.errors import NotFound
from bus.messaging.suggestions import did_you_mean
from bus.messaging.topology.model import Queue, Topology

__all__ = ["RequiredTopology"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RequiredTopology:
    """The needs of one or more services."""

    topology: Topology
    services: frozenset[str]
    attempts: Mapping[str, int]
    """By work queue: how often its handler tries, which the broker's delivery limit must not undercut."""
    timeouts: Mapping[str, float] = field(default_factory=dict)
    """By work queue: how many seconds its handler may take, which the broker's consumer timeout must not undercut."""

    def queue(self, name: str) -> Queue:
        """The queue of this name; `NotFound` says which there are."""
        for queue in self.topology.queues:
            if queue.name == name:
                return queue
        names = [each.name for each in self.topology.queues]
        meant = did_you_mean(name, names) or f"; they need {', '.join(names) or 'none'}"
        raise NotFound(f"these routers need no queue {name!r}{meant}")
