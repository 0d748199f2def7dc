"""What is declared for each kind of endpoint: its exchanges, queues and bindings.

Sources of the arguments: RabbitMQ's pages on quorum queues, dead letter exchanges and TTL.
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
"""ms. With nobody serving it an operation's queue vanishes, and callers hear `NotServed` at once."""
DELIVERY_LIMIT = 100
"""Deliveries of one message. For those that kill the process; 4.x would otherwise drop after 20."""
UNLIMITED_DELIVERIES = 1_000_000
"""Without it 4.x deletes a dead letter that was looked at 21 times; -1 deletes at the first requeue on 3.10."""

BASE_EXCHANGES = Topology(
    exchanges=tuple(
        Exchange(name=name, kind="topic")
        for name in (REQUESTS, JOBS, EVENTS, REPLIES, UPDATES, DEAD)
    )
)
"""The exchanges that every service needs. Topic, because only topic exchanges obey topic permissions, to publish and to bind (ADR 0020)."""


def request_topology(
    contract: Contract, *, quorum: bool = False, lasting: bool = False
) -> Topology:
    """An operation's queue. Durable and shared also when classic: 4.3 refuses transient queues that are not exclusive.

    `lasting`: it stays when nobody serves, for who may not make it anew.
    """
    queue = request_queue(contract)
    kind = {"x-queue-type": "quorum"} if quorum else {}
    expiry = {} if lasting else {"x-expires": REQUEST_QUEUE_EXPIRES_MS}
    return BASE_EXCHANGES | Topology(
        queues=(Queue(name=queue, role="requests", arguments={**kind, **expiry}),),
        bindings=(Binding(exchange=REQUESTS, queue=queue, routing_key=contract.type),),
    )


def job_topology(contract: Contract, *, tiers: Iterable[str]) -> Topology:
    """A job's work queue, its dead letters, and the retry tiers in use."""
    return _work_queue_topology(
        job_queue(contract), "jobs", contract.service, JOBS, contract, tiers
    )


def event_topology(
    subscriber: str, contract: Contract, subscription: str | None, *, tiers: Iterable[str]
) -> Topology:
    """A subscription's work queue, its dead letters, and the retry tiers in use."""
    return _work_queue_topology(
        event_queue(subscriber, contract, subscription),
        "events",
        subscriber,
        EVENTS,
        contract,
        tiers,
    )


def reply_topology(service: str, instance: str) -> Topology:
    """An instance's queue for replies to its requests and updates of its jobs; gone with its connection."""
    queue = reply_queue(service, instance)
    return BASE_EXCHANGES | Topology(
        queues=(Queue(name=queue, role="replies", durable=False, exclusive=True),),
        bindings=tuple(
            Binding(exchange=exchange, queue=queue, routing_key=queue)
            for exchange in (REPLIES, UPDATES)
        ),
    )


def migration_topology(queue: str) -> Topology:
    """Where the messages of `queue` wait while it is made anew: nothing expires there, and no limit drops any."""
    return Topology(queues=(_dead_queue(migration_queue(queue)),))


def _work_queue_topology(
    queue: str,
    purpose: QueueRole,
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
            queues=(Queue(name=queue, role=purpose, arguments=arguments),),
            bindings=(
                Binding(exchange=exchange, queue=queue, routing_key=contract.type),
                Binding(exchange=retry_return_exchange(service), queue=queue, routing_key=queue),
            ),
        )
    )


def _dead_lettering(exchange: str, *, routing_key: str | None = None) -> dict[str, Argument]:
    """Dead-lettering that loses nothing: all three together, one missing falls silently back to at-most-once."""
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
    """A fanout exchange, so that the routing key is free to name the work queue to come back to."""
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
    lost = unroutable_queue(service)
    return Topology(
        exchanges=(
            Exchange(name=lost, kind="fanout"),
            Exchange(
                name=retry_return_exchange(service),
                kind="direct",
                arguments={"alternate-exchange": lost},
            ),
        ),
        queues=(_dead_queue(lost),),
        bindings=(Binding(exchange=lost, queue=lost),),
    )
