"""Addresses: the exchange and routing key that each kind of message is sent to."""

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
    """Where a message is sent, and what the broker has to say to it."""

    exchange: str
    routing_key: str
    mandatory: bool = True
    """Whether a message that no queue takes comes back."""
    confirmed: bool = True
    """Whether the send waits until the broker has taken responsibility. Requests do not: the reply is the confirm."""


@lru_cache(maxsize=1024)
def address_of(kind: Kind, type_: str) -> Address:
    """Where a message of this type goes. An event may have no subscribers; a request or job that no queue takes is an error."""
    match kind:
        case "request":
            return Address(exchange=REQUESTS, routing_key=type_, confirmed=False)
        case "job":
            return Address(exchange=JOBS, routing_key=type_)
        case "event":
            return Address(exchange=EVENTS, routing_key=type_, mandatory=False)


@lru_cache(maxsize=1024)
def reply_address(reply_to: str) -> Address:
    """Where a reply goes. Mandatory, so that a caller that is gone is noticed."""
    exchange = "" if reply_to.startswith("amq.rabbitmq.reply-to") else REPLIES
    return Address(exchange=exchange, routing_key=reply_to, confirmed=False)


def update_address(reply_to: str, *, mandatory: bool) -> Address:
    """Where a job's result (mandatory) and progress (not) go: both confirmed, and so by one channel, in their order."""
    return Address(exchange=UPDATES, routing_key=reply_to, mandatory=mandatory)


def retry_address(service: str, tier: str, queue: str) -> Address:
    """Into a tier; when its time is over the broker returns the message to `queue`."""
    return Address(exchange=retry_tier(service, tier), routing_key=queue)


def dead_letter_address(queue: str) -> Address:
    """Into the queue's dead letters."""
    return Address(exchange=DEAD, routing_key=queue)


def replay_address(queue: str) -> Address:
    """From the dead letters back into the work queue `queue` alone: not to the other subscribers of an event."""
    return Address(exchange=retry_return_exchange(service_of(queue)), routing_key=queue)
