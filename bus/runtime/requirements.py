"""The topology that routers require, derived from their contracts and the settings."""

from collections.abc import Iterable

from bus.messaging.topology.declarations import BASE_EXCHANGES
from bus.messaging.topology.model import Queue, Topology, merge
from bus.operations.topology.required import RequiredTopology
from bus.runtime.router import Router
from bus.settings import Settings

__all__ = ["required_by", "topology_of"]


def topology_of(router: Router, settings: Settings) -> dict[str, tuple[Queue, Topology]]:
    """`Router.topology` as these settings want it."""
    return router.topology(
        quorum_requests=settings.request_queue == "quorum",
        lasting_requests=settings.topology == "verify",
    )


def required_by(routers: Iterable[Router], settings: Settings) -> RequiredTopology:
    """What all of them need together, as services with these settings would declare it; without any the six exchanges."""
    served = list(routers)
    needs = [
        topology for router in served for _, topology in topology_of(router, settings).values()
    ]
    return RequiredTopology(
        topology=merge([BASE_EXCHANGES, *needs]),
        services=frozenset(router.name for router in served),
        attempts={
            name: each.retry.attempts
            for router in served
            for name, each in router.endpoints.items()
            if each.contract.kind != "request"
        },
        timeouts={
            name: each.timeout
            for router in served
            for name, each in router.endpoints.items()
            if each.timeout is not None
        },
    )
