"""Topologies for the tests of the port."""

from bus.contracts.contract import Catalog, Contract, Job, contract, contract_of
from bus.messaging.topology.addresses import Address
from bus.messaging.topology.declarations import job_topology
from bus.messaging.topology.model import Binding, Exchange, Queue, Topology
from bus.messaging.topology.names import JOBS, job_queue

HERE = Exchange(name="here", kind="direct")


def plain(name: str, **arguments: str | int) -> tuple[Queue, Topology]:
    """Return a classic queue that is bound to the exchange `here` by its name."""
    queue = Queue(name=name, role="events", arguments=arguments)
    binding = Binding(exchange=HERE.name, queue=name, routing_key=name)
    return queue, Topology(exchanges=(HERE,), queues=(queue,), bindings=(binding,))


def quorum(name: str, **arguments: str | int) -> tuple[Queue, Topology]:
    """Return the same as `plain` with a quorum queue."""
    return plain(name, **{"x-queue-type": "quorum"}, **arguments)


def narrow(length: int) -> dict[str, str | int]:
    """Return the arguments of a queue that refuses more than about `length` messages."""
    return {"x-max-length": length, "x-overflow": "reject-publish"}


def to(queue: str, *, mandatory: bool = True, confirmed: bool = True) -> Address:
    """Return the address of a queue at the exchange `here`."""
    return Address(exchange=HERE.name, routing_key=queue, mandatory=mandatory, confirmed=confirmed)


def work_of(service: str, *tiers: str) -> tuple[Queue, Topology]:
    """Return the work queue of the job `<service>.work.v1`, and the job's topology."""

    @contract(f"{service}.work", version=1, catalog=Catalog())
    class Work(Job[None]):
        pass

    declared: Contract = contract_of(Work)
    topology = job_topology(declared, tiers=tiers)
    return next(queue for queue in topology.queues if queue.name == job_queue(declared)), topology


def to_jobs(routing_key: str) -> Address:
    """Return the address for a job of this type."""
    return Address(exchange=JOBS, routing_key=routing_key)
