"""What exists in the broker, as values, and where messages are sent. All names are derived here and nowhere else."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import reduce
from typing import Literal, TypeVar

__all__ = ["Binding", "Exchange", "Queue", "QueueRole", "Topology", "merge"]

Argument = str | int
T = TypeVar("T")
QueueRole = Literal["requests", "replies", "jobs", "events", "retry", "dead"]


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
    role: QueueRole
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


def merge(topologies: Iterable[Topology]) -> Topology:
    """All of them, each value once."""
    return reduce(Topology.__or__, topologies, Topology())


def _once(first: tuple[T, ...], second: tuple[T, ...]) -> tuple[T, ...]:
    return (*first, *(value for value in second if value not in first))


# --- names ---------------------------------------------------------------------------------------------------------


# --- addresses -----------------------------------------------------------------------------------------------------
