"""The queues and exchanges of services that their routers do not declare any more.

The functions are pure: they do not call the broker.

A name alone does not show that the bus created an object. So a queue also needs the arguments or
the binding that only the bus gives to a queue of this name.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from bus.messaging.topology.model import Binding, QueueRole
from bus.messaging.topology.names import (
    DEAD,
    RETRY_DELAYS,
    SOURCES,
    QueueName,
    migration_queue,
    parse_queue_name,
    queue_prefix,
    retry_return_exchange,
    retry_tier,
    unroutable_queue,
)
from bus.operations.topology.broker_state import ActualQueue, BrokerState, effective_arguments
from bus.operations.topology.required import RequiredTopology

__all__ = ["OldExchange", "OldObjects", "OldQueue", "find_old"]

ORDER: Mapping[QueueRole, int] = {"requests": 0, "jobs": 0, "events": 0, "dead": 1, "retry": 2}
"""Order in which the queues of a service are deleted. The queue for unroutable messages is last."""
LAST = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class OldQueue:
    """A queue that the bus created for a service, and that the service's routers do not declare."""

    name: str
    service: str
    role: QueueRole
    is_quorum: bool
    work_queue: str | None = None
    """Work queue of a dead-letter queue. None for other queues and for the unroutable queue."""
    tier: str | None = None
    """Delay in the name of a retry tier, such as `30s`."""
    is_migrating: bool = False
    """True if a migration of the queue, or of the work queue of dead letters, was interrupted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OldExchange:
    """An exchange that the bus created for a service that does not need the exchange any more."""

    name: str
    service: str
    queue: str | None = None
    """Queue of the exchange. None for the return exchange, to which all work queues are bound."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OldObjects:
    """The old objects of some services, in the order in which they can be deleted."""

    queues: tuple[OldQueue, ...] = ()
    exchanges: tuple[OldExchange, ...] = ()
    tiers: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Retry tiers that exist for each service, old or not. They can hold messages of old queues."""
    foreign: tuple[str, ...] = ()
    """Queues with a name of these services that the bus did not create."""


def find_old(required: RequiredTopology, state: BrokerState) -> OldObjects:
    """Return the objects of the services in `required` that their routers do not declare.

    A request queue that expires is not included.
    """
    declared = {queue.name for queue in required.topology.queues}
    bindings: dict[str, list[Binding]] = defaultdict(list)
    for binding in state.bindings:
        bindings[binding.queue].append(binding)
    found: list[OldQueue] = []
    foreign: list[str] = []
    for name in sorted(state.queues.keys() - declared):
        parsed = parse_queue_name(name)
        if parsed is None or parsed.service not in required.services or parsed.role == "replies":
            continue
        if parsed.role == "requests" and "expires" in effective_arguments(state.queues[name]):
            continue  # the broker deletes it; a worker can be about to use it
        # The dead letters of a foreign queue are foreign, too. In sorted order, they follow their
        # work queue.
        if parsed.work_queue not in foreign and _is_of_bus(
            parsed, state.queues[name], bindings[name]
        ):
            found.append(_to_old_queue(parsed, state))
        else:
            foreign.append(name)
    return OldObjects(
        queues=tuple(sorted(found, key=_order)),
        exchanges=tuple(
            exchange
            for service in sorted(required.services)
            for exchange in _find_exchanges(service, required, state)
        ),
        tiers={
            service: tuple(
                name
                for name in (retry_tier(service, tier) for tier in RETRY_DELAYS)
                if name in state.queues
            )
            for service in required.services
        },
        foreign=tuple(foreign),
    )


def _to_old_queue(parsed: QueueName, state: BrokerState) -> OldQueue:
    prefix = queue_prefix(parsed.service, "retry")
    return OldQueue(
        name=parsed.name,
        service=parsed.service,
        role=parsed.role,
        is_quorum=state.queues[parsed.name].kind == "quorum",
        work_queue=parsed.work_queue,
        tier=parsed.name.removeprefix(prefix) if parsed.role == "retry" else None,
        is_migrating=any(
            migration_queue(name) in state.queues for name in (parsed.name, parsed.work_queue or "")
        ),
    )


def _order(queue: OldQueue) -> tuple[str, int, str]:
    is_unroutable = queue.role == "dead" and queue.work_queue is None
    return queue.service, LAST if is_unroutable else ORDER[queue.role], queue.name


def _is_of_bus(parsed: QueueName, actual: ActualQueue, bindings: Iterable[Binding]) -> bool:
    """Return True if the queue has the arguments or a binding that the bus gives to its queues.

    An interrupted run can have removed the binding of a work queue or of a retry tier to its
    source. These queues have arguments that contain their own name or the name of their service.
    """
    keys = {(binding.exchange, binding.routing_key) for binding in bindings}
    arguments, service = actual.arguments, parsed.service
    if actual.exclusive or actual.auto_delete or not actual.durable:
        return False
    if parsed.role == "dead":
        unroutable = unroutable_queue(service)
        source = (DEAD, parsed.work_queue) if parsed.work_queue else (unroutable, "")
        return source in keys
    if parsed.role == "retry":
        return "x-message-ttl" in arguments and (
            arguments.get("x-dead-letter-exchange") == retry_return_exchange(service)
        )
    names_itself = (
        arguments.get("x-dead-letter-exchange") == DEAD
        and arguments.get("x-dead-letter-routing-key") == parsed.name
    )
    return (parsed.role != "requests" and names_itself) or any(
        exchange == SOURCES[parsed.role] and _is_queue_of(parsed, key) for exchange, key in keys
    )


def _is_queue_of(parsed: QueueName, type_: str) -> bool:
    """Return True if the service's queue for messages of this type has the parsed name."""
    prefix = queue_prefix(parsed.service, parsed.role)
    if parsed.role == "events":
        return f"{parsed.name}.".startswith(f"{prefix}{type_}.")
    return parsed.name == f"{prefix}{type_.removeprefix(f'{parsed.service}.')}"


def _find_exchanges(
    service: str, required: RequiredTopology, state: BrokerState
) -> Iterator[OldExchange]:
    declared = {exchange.name for exchange in required.topology.exchanges}
    unroutable = unroutable_queue(service)
    candidates = (
        *((retry_tier(service, tier), "fanout", True) for tier in RETRY_DELAYS),
        (retry_return_exchange(service), "direct", False),
        (unroutable, "fanout", True),
    )
    for name, kind, has_queue in candidates:
        actual = state.exchanges.get(name)
        if actual is not None and name not in declared and actual.kind == kind:
            yield OldExchange(name=name, service=service, queue=name if has_queue else None)
