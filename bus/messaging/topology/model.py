"""Exchanges, queues and bindings of the broker, as values."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import reduce
from typing import Literal, TypeVar

__all__ = ["Binding", "Exchange", "Queue", "QueueRole", "Topology", "merge"]

Argument = str | int
T = TypeVar("T")
QueueRole = Literal["requests", "replies", "jobs", "events", "retry", "dead", "control"]
"""Role of a queue in the bus."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Exchange:
    """Exchange of the bus. All exchanges of the bus are durable."""

    name: str
    kind: Literal["topic", "direct", "fanout"]
    arguments: Mapping[str, Argument] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Queue:
    """Queue of the bus."""

    name: str
    role: QueueRole
    """Role in the bus. It selects the connection on which a transport consumes the queue."""
    durable: bool = True
    exclusive: bool = False
    arguments: Mapping[str, Argument] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Binding:
    """Binding of a queue to an exchange."""

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
        """Return the union of the two topologies, without duplicates."""
        return Topology(
            exchanges=_union(self.exchanges, other.exchanges),
            queues=_union(self.queues, other.queues),
            bindings=_union(self.bindings, other.bindings),
        )


def merge(topologies: Iterable[Topology]) -> Topology:
    """Return the union of all topologies, without duplicates."""
    return reduce(Topology.__or__, topologies, Topology())


def _union(first: tuple[T, ...], second: tuple[T, ...]) -> tuple[T, ...]:
    return (*first, *(value for value in second if value not in first))
