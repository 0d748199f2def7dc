"""Addresses: the exchange and routing key for each kind of message."""

from dataclasses import dataclass
from functools import lru_cache

from bus.contracts.contract import Kind
from bus.messaging.topology.names import (
    DEAD,
    EVENTS,
    JOBS,
    REPLIES,
    REQUESTS,
    UPDATES,
    retry_return_exchange,
    retry_tier,
    service_of,
)

__all__ = [
    "Address",
    "address_of",
    "dead_letter_address",
    "replay_address",
    "reply_address",
    "retry_address",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """Exchange, routing key and publish options of a message."""

    exchange: str
    routing_key: str
    mandatory: bool = True
    """True if the broker returns a message that no queue accepts."""
    confirmed: bool = True
    """True if the send waits for the broker's confirm.

    It is False for requests and replies. A request needs no confirm, because the reply shows that
    the request arrived.
    """


@lru_cache(maxsize=1024)
def address_of(kind: Kind, type_: str) -> Address:
    """Return the address of a request, job or event.

    An event is not mandatory, because it may have no subscribers. A request or job that no queue
    accepts is an error.

    Args:
        kind: Kind of the contract.
        type_: Type on the wire.
    """
    match kind:
        case "request":
            return Address(exchange=REQUESTS, routing_key=type_, confirmed=False)
        case "job":
            return Address(exchange=JOBS, routing_key=type_)
        case "event":
            return Address(exchange=EVENTS, routing_key=type_, mandatory=False)


@lru_cache(maxsize=1024)
def reply_address(reply_to: str) -> Address:
    """Return the address of a reply. The broker returns the reply if the caller has ended."""
    exchange = "" if reply_to.startswith("amq.rabbitmq.reply-to") else REPLIES
    return Address(exchange=exchange, routing_key=reply_to, confirmed=False)


def update_address(reply_to: str, *, mandatory: bool) -> Address:
    """Return the address of a job's result (mandatory) or progress (not mandatory).

    Results and progress are confirmed. All confirmed messages are sent on one channel, which keeps
    their order.
    """
    return Address(exchange=UPDATES, routing_key=reply_to, mandatory=mandatory)


def retry_address(service: str, tier: str, queue: str) -> Address:
    """Return the address of a retry tier, from which the broker returns a message to `queue`."""
    return Address(exchange=retry_tier(service, tier), routing_key=queue)


def dead_letter_address(queue: str) -> Address:
    """Return the address of a queue's dead letters."""
    return Address(exchange=DEAD, routing_key=queue)


def replay_address(queue: str) -> Address:
    """Return the address that reaches only this work queue.

    A replay uses this address, so that other subscribers of an event do not receive the event
    again.
    """
    return Address(exchange=retry_return_exchange(service_of(queue)), routing_key=queue)
