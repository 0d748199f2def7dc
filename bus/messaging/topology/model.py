"""What exists in the broker, as values, and where messages are sent. All names are derived here and nowhere else."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache, reduce
from typing import Literal, TypeVar

from bus.contracts.contract import Contract, Kind

__all__ = [
    "DEAD",
    "EVENTS",
    "JOBS",
    "REPLIES",
    "REQUESTS",
    "TIERS",
    "UPDATES",
    "Address",
    "Binding",
    "Exchange",
    "Purpose",
    "Queue",
    "Topology",
    "address_of",
    "dead_letter_address",
    "dead_letter_queue",
    "holding_queue",
    "merged",
    "prefix",
    "replay_address",
    "reply_address",
    "retry_address",
    "service_of",
    "tier_for",
    "work_queue",
]

Argument = str | int
T = TypeVar("T")
Purpose = Literal["requests", "replies", "jobs", "events", "retry", "dead"]

REQUESTS, JOBS, EVENTS = "bus.requests", "bus.jobs", "bus.events"
REPLIES, UPDATES, DEAD = "bus.replies", "bus.updates", "bus.dead"

TIERS: Mapping[str, float] = {"1s": 1, "5s": 5, "30s": 30, "2m": 120, "10m": 600, "1h": 3600}
"""The retry tiers, in seconds. Fixed, because of a mixed queue only the head expires."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Exchange:
    """An exchange; always durable."""

    name: str
    kind: Literal["topic", "direct", "fanout"]
    arguments: Mapping[str, Argument] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Queue:
    """A queue. `purpose` is ours: it decides the connection that a transport consumes it on."""

    name: str
    purpose: Purpose
    durable: bool = True
    exclusive: bool = False
    arguments: Mapping[str, Argument] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Binding:
    """A queue's binding to an exchange."""

    exchange: str
    queue: str
    routing_key: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Topology:
    """Exchanges, queues and bindings, in the order in which they have to be declared."""

    exchanges: tuple[Exchange, ...] = ()
    queues: tuple[Queue, ...] = ()
    bindings: tuple[Binding, ...] = ()

    def __or__(self, other: "Topology") -> "Topology":
        """Both, each value once."""
        return Topology(
            exchanges=_once(self.exchanges, other.exchanges),
            queues=_once(self.queues, other.queues),
            bindings=_once(self.bindings, other.bindings),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """Where a message is sent, and what the broker has to say to it."""

    exchange: str
    routing_key: str
    mandatory: bool = True
    """Whether a message that no queue takes comes back."""
    confirmed: bool = True
    """Whether the send waits until the broker has taken responsibility. Requests do not: the reply is the confirm."""


def merged(topologies: Iterable[Topology]) -> Topology:
    """All of them, each value once."""
    return reduce(Topology.__or__, topologies, Topology())


def _once(first: tuple[T, ...], second: tuple[T, ...]) -> tuple[T, ...]:
    return (*first, *(value for value in second if value not in first))


# --- names ---------------------------------------------------------------------------------------------------------


def prefix(service: str, purpose: Purpose) -> str:
    """`<service>.<purpose>.`: how the names of its queues of this purpose begin, their dead letters' included."""
    return f"{service}.{purpose}."


def request_queue(contract: Contract) -> str:
    """`<service>.requests.<operation>.v<n>`."""
    return f"{prefix(contract.service, 'requests')}{contract.operation}.v{contract.version}"


def job_queue(contract: Contract) -> str:
    """`<service>.jobs.<job>.v<n>`: a queue a version, so that an old worker never sees what only a new one knows."""
    return f"{prefix(contract.service, 'jobs')}{contract.operation}.v{contract.version}"


def event_queue(subscriber: str, contract: Contract, subscription: str | None = None) -> str:
    """`<subscriber>.events.<event>.v<n>[.<subscription>]`."""
    name = f"{prefix(subscriber, 'events')}{contract.name}.v{contract.version}"
    return f"{name}.{subscription}" if subscription else name


def reply_queue(service: str, instance: str) -> str:
    """`<service>.replies.<instance>`."""
    return f"{prefix(service, 'replies')}{instance}"


def dead_letter_queue(queue: str) -> str:
    """`<queue>.dead`."""
    return f"{queue}.dead"


def work_queue(dead_letters: str) -> str | None:
    """The work queue whose dead letters this queue holds; None for those that came back from a tier and found their queue gone."""
    if dead_letters == unroutable_dead(service_of(dead_letters)):
        return None
    return dead_letters.removesuffix(dead_letter_queue(""))


def service_of(queue: str) -> str:
    """The service that a queue belongs to."""
    return queue.partition(".")[0]


def retry_tier(service: str, tier: str) -> str:
    """`<service>.retry.<delay>`, both the exchange and its queue."""
    return f"{prefix(service, 'retry')}{tier}"


def return_exchange(service: str) -> str:
    """`<service>.return`, the way back from the retry tiers."""
    return f"{service}.return"


def unroutable_dead(service: str) -> str:
    """`<service>.unroutable.dead`: what came back from a tier and found its queue gone."""
    return f"{service}.unroutable.dead"


def holding_queue(queue: str) -> str:
    """`bus.holding.<queue>`: where its messages wait while it is made anew. No service is called `bus`."""
    return f"bus.holding.{queue}"


def tier_for(delay: float) -> str:
    """The shortest tier that is at least `delay` seconds; the longest where none is."""
    return next((name for name, seconds in TIERS.items() if seconds >= delay), [*TIERS][-1])


# --- addresses -----------------------------------------------------------------------------------------------------


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
    return Address(exchange=return_exchange(service_of(queue)), routing_key=queue)
