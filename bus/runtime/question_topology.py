"""The queues of the questions about the jobs of a service."""

from bus.messaging.jobs.questions import cancel_contract, get_contract
from bus.messaging.topology.declarations import request_topology
from bus.messaging.topology.model import Queue, Topology
from bus.messaging.topology.names import request_queue
from bus.settings import Settings

__all__ = ["question_topology"]


def question_topology(service: str, settings: Settings) -> dict[str, tuple[Queue, Topology]]:
    """Return the queue of each question about jobs, and the topology that the queue requires.

    The queues are classic also if those of the user's requests are quorum queues. A lost question
    is asked again.

    Args:
        service: Service of the jobs.
        settings: Settings of the service.
    """
    found = {}
    for contract in (get_contract(service), cancel_contract(service)):
        name = request_queue(contract)
        topology = request_topology(contract, lasting=settings.topology == "verify")
        queue = next(queue for queue in topology.queues if queue.name == name)
        found[name] = (queue, topology)
    return found
