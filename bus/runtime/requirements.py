"""The topology that routers require, derived from their contracts and the settings."""

from collections.abc import Iterable

from bus.messaging.topology.declarations import BASE_EXCHANGES
from bus.messaging.topology.model import Queue, Topology, merge
from bus.operations.topology.required import RequiredTopology
from bus.runtime.router import Router
from bus.settings import Settings

__all__ = ["required_by", "topology_of"]


def topology_of(router: Router, settings: Settings) -> dict[str, tuple[Queue, Topology]]:
    """Return `Router.topology` for these settings."""
    return router.topology(
        quorum_requests=settings.request_queue == "quorum",
        lasting_requests=settings.topology == "verify",
    )


def required_by(routers: Iterable[Router], settings: Settings) -> RequiredTopology:
    """Return the topology that the routers require together, as their services declare it.

    Args:
        routers: The routers. Without any, the topology is the six exchanges of the bus.
        settings: The settings of every service.
    """
    all_routers = list(routers)
    topologies = [
        topology for router in all_routers for _, topology in topology_of(router, settings).values()
    ]
    return RequiredTopology(
        topology=merge([BASE_EXCHANGES, *topologies]),
        services=frozenset(router.name for router in all_routers),
        attempts={
            name: endpoint.retry.attempts
            for router in all_routers
            for name, endpoint in router.endpoints.items()
            if endpoint.contract.kind != "request"
        },
        timeouts={
            name: endpoint.timeout
            for router in all_routers
            for name, endpoint in router.endpoints.items()
            if endpoint.timeout is not None
        },
    )
