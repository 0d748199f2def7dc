"""The exchanges, queues and bindings that routers require. They depend on the settings."""

from collections.abc import Iterable

from bus.errors import ConfigurationError
from bus.messaging.topology.control import CONTROL_EXCHANGE
from bus.messaging.topology.declarations import BASE_EXCHANGES
from bus.messaging.topology.model import Queue, Topology, merge
from bus.operations.topology.required import RequiredTopology
from bus.runtime.question_topology import question_topology
from bus.runtime.router import Router
from bus.settings import Settings

__all__ = ["check_has_handlers", "required_by", "topology_of"]


def check_has_handlers(router: Router) -> None:
    """Check that a router is complete.

    Raises:
        ConfigurationError: The router has neither handlers nor a lifespan.
    """
    if not router.endpoints and not router.has_lifespan:
        raise ConfigurationError(
            f"{router.name}: the router has no handlers. Import the modules that register "
            "them, or include their routers with Router.include."
        )


def topology_of(router: Router, settings: Settings) -> dict[str, tuple[Queue, Topology]]:
    """Return each queue of a router, and the topology that this queue requires.

    The keys are the names of the queues.
    """
    return router.topology(
        quorum_requests=settings.request_queue == "quorum",
        lasting_requests=settings.topology == "verify",
    )


def required_by(
    routers: Iterable[Router], settings: Settings, *, has_store: bool | None = None
) -> RequiredTopology:
    """Return the topology that several routers require together.

    Args:
        routers: The routers. Without routers, the topology is only the exchanges of the bus.
        settings: The settings, which must be the same for the services of all routers.
        has_store: True if the services have a durable store. The default is the setting `store`.
    """
    all_routers = list(routers)
    is_stored = settings.has_store if has_store is None else has_store
    topologies = [
        topology for router in all_routers for _, topology in topology_of(router, settings).values()
    ]
    # A service without a store answers no questions, and its queues would have no consumer.
    if settings.has_store:
        topologies += [
            topology
            for router in all_routers
            if any(contract.kind == "job" for contract in router.contracts)
            for _, topology in question_topology(router.name, settings).values()
        ]
    control = [CONTROL_EXCHANGE] if settings.discovery == "on" else []
    return RequiredTopology(
        topology=merge([BASE_EXCHANGES, *control, *topologies]),
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
            # A stored job is acked before its handler starts.
            if endpoint.timeout is not None and not (is_stored and endpoint.contract.kind == "job")
        },
    )
