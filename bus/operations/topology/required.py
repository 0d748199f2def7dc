"""What routers need in the broker."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from bus.errors import NotFound
from bus.messaging.suggestions import did_you_mean
from bus.messaging.topology.declarations import BASE
from bus.messaging.topology.model import Queue, Topology, merged
from bus.runtime.router import Router
from bus.settings import Settings

__all__ = ["Wanted", "topology_of", "wanted_by"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
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


def topology_of(router: Router, settings: Settings) -> dict[str, tuple[Queue, Topology]]:
    """`Router.topology` as these settings want it."""
    return router.topology(quorum_requests=settings.request_queue == "quorum", lasting_requests=settings.topology == "verify")


def wanted_by(routers: Iterable[Router], settings: Settings) -> Wanted:
    """What all of them need together, as services with these settings would declare it; without any the six exchanges."""
    served = list(routers)
    needs = [topology for router in served for _, topology in topology_of(router, settings).values()]
    return Wanted(
        topology=merged([BASE, *needs]),
        services=frozenset(router.name for router in served),
        attempts={
            name: each.retry.attempts for router in served for name, each in router.endpoints.items() if each.contract.kind != "request"
        },
        timeouts={name: each.timeout for router in served for name, each in router.endpoints.items() if each.timeout is not None},
    )
