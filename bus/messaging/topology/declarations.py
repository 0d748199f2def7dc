"""Topology of each kind of endpoint: its exchanges, queues and bindings.

The sources of the arguments are RabbitMQ's pages on quorum queues, dead letter exchanges and TTL.
"""

from collections.abc import Iterable

from bus.contracts.contract import Contract
from bus.messaging.topology.model import (
    Argument,
    Binding,
    Exchange,
    Queue,
    QueueRole,
    Topology,
    merge,
)
from bus.messaging.topology.names import (
    DEAD,
    EVENTS,
    JOBS,
    REPLIES,
    REQUESTS,
    RETRY_DELAYS,
    UPDATES,
    dead_letter_queue,
    event_queue,
    job_queue,
    migration_queue,
    reply_queue,
    request_queue,
    retry_return_exchange,
    retry_tier,
    unroutable_queue,
)

__all__ = [
    "BASE_EXCHANGES",
    "event_topology",
    "job_topology",
    "migration_topology",
    "reply_topology",
    "request_topology",
]

REQUEST_QUEUE_EXPIRES_MS = 60_000
"""Milliseconds without a consumer after which the broker deletes a request queue.

After the deletion, callers receive `NotServed` without a wait for the timeout.
"""
DELIVERY_LIMIT = 100
"""Delivery limit of work queues.

If a message repeatedly ends the process that handles it, the broker dead-letters the message at
this limit. The default limit of RabbitMQ 4.x is 20.
"""
UNLIMITED_DELIVERIES = 1_000_000
"""Delivery limit of dead-letter queues. It is high, because each browse counts as a delivery.

With the default limit, RabbitMQ 4.x deletes a dead letter that was browsed 21 times. With the limit
-1, RabbitMQ 3.10 deletes a dead letter at the first requeue.
"""

BASE_EXCHANGES = Topology(
    exchanges=tuple(
        Exchange(name=name, kind="topic")
        for name in (REQUESTS, JOBS, EVENTS, REPLIES, UPDATES, DEAD)
    )
)
"""Exchanges that every service needs.

They are topic exchanges, because RabbitMQ checks topic permissions only on topic exchanges. These
permissions limit the routing keys of publishes and bindings (ADR 0020).
"""


def request_topology(
    contract: Contract, *, quorum: bool = False, lasting: bool = False
) -> Topology:
    """Return the topology of an operation.

    The queue is durable even if it is classic, because RabbitMQ 4.3 refuses transient queues that
    are not exclusive.

    Args:
        contract: Contract of the request.
        quorum: True for a quorum queue, False for a classic queue.
        lasting: True if the broker keeps the queue when it has no consumer. Use True if the service
            is not allowed to declare the queue.
    """
    queue = request_queue(contract)
    kind = {"x-queue-type": "quorum"} if quorum else {}
    expiry = {} if lasting else {"x-expires": REQUEST_QUEUE_EXPIRES_MS}
    return BASE_EXCHANGES | Topology(
        queues=(Queue(name=queue, role="requests", arguments={**kind, **expiry}),),
        bindings=(Binding(exchange=REQUESTS, queue=queue, routing_key=contract.type),),
    )


def job_topology(contract: Contract, *, tiers: Iterable[str]) -> Topology:
    """Return the topology of a job: work queue, dead-letter queue and retry tiers.

    Args:
        contract: Contract of the job.
        tiers: Names of the retry tiers that the job's retry policy uses.
    """
    return _work_queue_topology(
        job_queue(contract), "jobs", contract.service, JOBS, contract, tiers
    )


def event_topology(
    subscriber: str, contract: Contract, subscription: str | None, *, tiers: Iterable[str]
) -> Topology:
    """Return the topology of a subscription: work queue, dead-letter queue and retry tiers.

    Args:
        subscriber: Service that subscribes.
        contract: Contract of the event.
        subscription: Name of the subscription. None if the service has only one for this event.
        tiers: Names of the retry tiers that the subscription's retry policy uses.
    """
    return _work_queue_topology(
        event_queue(subscriber, contract, subscription),
        "events",
        subscriber,
        EVENTS,
        contract,
        tiers,
    )


def reply_topology(service: str, instance: str) -> Topology:
    """Return the topology of an instance's reply queue, for replies and job updates.

    The broker deletes the queue when the connection ends.
    """
    queue = reply_queue(service, instance)
    return BASE_EXCHANGES | Topology(
        queues=(Queue(name=queue, role="replies", durable=False, exclusive=True),),
        bindings=tuple(
            Binding(exchange=exchange, queue=queue, routing_key=queue)
            for exchange in (REPLIES, UPDATES)
        ),
    )


def migration_topology(queue: str) -> Topology:
    """Return the topology of a temporary queue that keeps the messages while `queue` is recreated.

    The temporary queue has no message TTL and no length limit.
    """
    return Topology(queues=(_dead_queue(migration_queue(queue)),))


def _work_queue_topology(
    queue: str,
    role: QueueRole,
    service: str,
    exchange: str,
    contract: Contract,
    tiers: Iterable[str],
) -> Topology:
    arguments = {**_dead_lettering(DEAD, routing_key=queue), "x-delivery-limit": DELIVERY_LIMIT}
    return (
        BASE_EXCHANGES
        | _dead_letter_topology(queue)
        | _retry_return_topology(service)
        | merge(_retry_tier_topology(service, tier) for tier in tiers)
        | Topology(
            queues=(Queue(name=queue, role=role, arguments=arguments),),
            bindings=(
                Binding(exchange=exchange, queue=queue, routing_key=contract.type),
                Binding(exchange=retry_return_exchange(service), queue=queue, routing_key=queue),
            ),
        )
    )


def _dead_lettering(exchange: str, *, routing_key: str | None = None) -> dict[str, Argument]:
    """Return arguments for dead-lettering at least once.

    The strategy `at-least-once` requires a dead-letter exchange and the overflow `reject-publish`.
    If one of these three arguments is missing, RabbitMQ dead-letters at most once, without a
    warning.
    """
    key = {"x-dead-letter-routing-key": routing_key} if routing_key else {}
    return {
        "x-queue-type": "quorum",
        "x-dead-letter-exchange": exchange,
        **key,
        "x-dead-letter-strategy": "at-least-once",
        "x-overflow": "reject-publish",
    }


def _dead_letter_topology(queue: str) -> Topology:
    dead = dead_letter_queue(queue)
    return Topology(
        queues=(_dead_queue(dead),),
        bindings=(Binding(exchange=DEAD, queue=dead, routing_key=queue),),
    )


def _dead_queue(name: str) -> Queue:
    return Queue(
        name=name,
        role="dead",
        arguments={"x-queue-type": "quorum", "x-delivery-limit": UNLIMITED_DELIVERIES},
    )


def _retry_tier_topology(service: str, tier: str) -> Topology:
    """Return the topology of a retry tier.

    The exchange is a fanout exchange, which ignores the routing key. The routing key is the name of
    the work queue to which the message returns.
    """
    name = retry_tier(service, tier)
    arguments = {
        **_dead_lettering(retry_return_exchange(service)),
        "x-message-ttl": int(RETRY_DELAYS[tier] * 1000),
    }
    return Topology(
        exchanges=(Exchange(name=name, kind="fanout"),),
        queues=(Queue(name=name, role="retry", arguments=arguments),),
        bindings=(Binding(exchange=name, queue=name),),
    )


def _retry_return_topology(service: str) -> Topology:
    unroutable = unroutable_queue(service)
    return Topology(
        exchanges=(
            Exchange(name=unroutable, kind="fanout"),
            Exchange(
                name=retry_return_exchange(service),
                kind="direct",
                arguments={"alternate-exchange": unroutable},
            ),
        ),
        queues=(_dead_queue(unroutable),),
        bindings=(Binding(exchange=unroutable, queue=unroutable),),
    )
