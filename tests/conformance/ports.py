"""Topologies for the tests of the port."""

from bus.contracts.contract import Catalog, Contract, Job, contract, contract_of
from bus.messaging.topology.addresses import Address
from bus.messaging.topology.declarations import job_topology
from bus.messaging.topology.model import Binding, Exchange, Queue, Topology
from bus.messaging.topology.names import JOBS, job_queue

HERE = Exchange(name="here", kind="direct")


def plain(name: str, **arguments: str | int) -> tuple[Queue, Topology]:
    """A classic queue, bound to `here` by its name."""
    queue = Queue(name=name, role="events", arguments=arguments)
    binding = Binding(exchange=HERE.name, queue=name, routing_key=name)
    return queue, Topology(exchanges=(HERE,), queues=(queue,), bindings=(binding,))


def quorum(name: str, **arguments: str | int) -> tuple[Queue, Topology]:
    """The same as a quorum queue."""
    return plain(name, **{"x-queue-type": "quorum"}, **arguments)


def narrow(length: int) -> dict[str, str | int]:
    """The arguments of a queue that refuses more than `length` messages, roughly."""
    return {"x-max-length": length, "x-overflow": "reject-publish"}


def to(queue: str, *, mandatory: bool = True, confirmed: bool = True) -> Address:
    """Straight to a queue of `here`."""
    return Address(exchange=HERE.name, routing_key=queue, mandatory=mandatory, confirmed=confirmed)


def work_of(service: str, *tiers: str) -> tuple[Queue, Topology]:
    """The work queue of `<service>.work.v1`, with all that belongs to it."""

    @contract(f"{service}.work", version=1, catalog=Catalog())
    class Work(Job[None]):
        pass

    declared: Contract = contract_of(Work)
    topology = job_topology(declared, tiers=tiers)
    return next(queue for queue in topology.queues if queue.name == job_queue(declared)), topology


def to_jobs(routing_key: str) -> Address:
    """As a job of this type is sent."""
    return Address(exchange=JOBS, routing_key=routing_key)
