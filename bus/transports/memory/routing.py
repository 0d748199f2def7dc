"""The exchanges and bindings of the model broker. They route messages to queues."""

from collections.abc import Iterator, Mapping, Sequence

from bus.errors import TopologyMismatch
from bus.messaging.topology.model import Binding, Exchange
from bus.messaging.topology.topic_pattern import topic_matches

__all__ = ["Routes", "difference", "mismatch"]


class Routes:
    """The exchanges and bindings of one model broker."""

    def __init__(self) -> None:
        self._exchanges: dict[str, Exchange] = {}
        self._bindings: dict[Binding, None] = {}

    def declare(self, exchange: Exchange) -> None:
        """Declare an exchange.

        Raises:
            TopologyMismatch: The exchange already exists, but its type or its alternate exchange is
                different. RabbitMQ compares no other argument of an exchange.
        """
        existing = self._exchanges.setdefault(exchange.name, exchange)
        if existing.kind != exchange.kind:
            raise TopologyMismatch(
                mismatch("type", "exchange", exchange.name, exchange.kind, existing.kind)
            )
        requested, current = (
            declared.arguments.get("alternate-exchange") for declared in (exchange, existing)
        )
        if requested != current:
            raise TopologyMismatch(
                mismatch("alternate-exchange", "exchange", exchange.name, requested, current)
            )

    def bind(self, binding: Binding) -> None:
        """Add a binding if it does not exist."""
        self._bindings[binding] = None

    def unbind(self, binding: Binding) -> None:
        """Remove a binding if it exists."""
        self._bindings.pop(binding, None)

    def forget(self, queue: str) -> None:
        """Remove all bindings of a deleted queue."""
        self._bindings = {binding: None for binding in self._bindings if binding.queue != queue}

    def __contains__(self, exchange: str) -> bool:
        return exchange == "" or exchange in self._exchanges

    def targets(self, exchange: str, routing_key: str) -> Sequence[str]:
        """Return the names of the target queues, without duplicates.

        If no binding matches, return the target queues of the alternate exchange.
        """
        if exchange == "":
            return [routing_key]
        queues = [*dict.fromkeys(self._match_bindings(exchange, routing_key))]
        alternate = self._exchanges[exchange].arguments.get("alternate-exchange")
        if queues or alternate not in self._exchanges:
            return queues
        return self.targets(str(alternate), routing_key)

    def _match_bindings(self, exchange: str, routing_key: str) -> Iterator[str]:
        for binding in self._bindings:
            if binding.exchange == exchange and _matches(
                self._exchanges[exchange], binding.routing_key, routing_key
            ):
                yield binding.queue


def _matches(exchange: Exchange, key: str, routing_key: str) -> bool:
    match exchange.kind:
        case "topic":
            return topic_matches(key, routing_key)
        case "direct":
            return key == routing_key
        case "fanout":
            return True


def mismatch(argument: str, kind: str, name: str, requested: object, current: object) -> str:
    """Return RabbitMQ's error text for a different argument, but without the virtual host."""
    return (
        f"inequivalent arg '{argument}' for {kind} '{name}': "
        f"received {_quote(requested)} but current is {_quote(current)}"
    )


def _quote(value: object) -> str:
    return "none" if value is None else f"'{value}'"


Difference = tuple[str, object, object]


def difference(requested: Mapping[str, object], current: Mapping[str, object]) -> Difference | None:
    """Return the name, requested value and current value of the first argument that differs."""
    for name in sorted(requested.keys() | current.keys()):
        if requested.get(name) != current.get(name):
            return name, requested.get(name), current.get(name)
    return None
