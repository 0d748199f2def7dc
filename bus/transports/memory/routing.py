"""Exchanges and bindings of the model broker: which queues a message goes to."""

from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache

from bus.errors import TopologyMismatch
from bus.messaging.topology.model import Binding, Exchange

__all__ = ["Routes", "difference", "mismatch", "topic_matches"]


class Routes:
    """Exchanges, and the queues bound to them."""

    def __init__(self) -> None:
        self._exchanges: dict[str, Exchange] = {}
        self._bindings: dict[Binding, None] = {}

    def declare(self, exchange: Exchange) -> None:
        """Make it exist; of its arguments RabbitMQ compares the alternate exchange alone."""
        known = self._exchanges.setdefault(exchange.name, exchange)
        if known.kind != exchange.kind:
            raise TopologyMismatch(
                mismatch("type", "exchange", exchange.name, exchange.kind, known.kind)
            )
        wanted, current = (each.arguments.get("alternate-exchange") for each in (exchange, known))
        if wanted != current:
            raise TopologyMismatch(
                mismatch("alternate-exchange", "exchange", exchange.name, wanted, current)
            )

    def bind(self, binding: Binding) -> None:
        """Bind once, however often it is asked for."""
        self._bindings[binding] = None

    def unbind(self, binding: Binding) -> None:
        """Remove a binding; one that is not there is no error."""
        self._bindings.pop(binding, None)

    def forget(self, queue: str) -> None:
        """Remove all bindings of a queue that is gone."""
        self._bindings = {binding: None for binding in self._bindings if binding.queue != queue}

    def __contains__(self, exchange: str) -> bool:
        return exchange == "" or exchange in self._exchanges

    def targets(self, exchange: str, routing_key: str) -> Sequence[str]:
        """The queues' names, each once; where there are none, those of the alternate exchange."""
        if exchange == "":
            return [routing_key]
        found = [*dict.fromkeys(self._bound(exchange, routing_key))]
        alternate = self._exchanges[exchange].arguments.get("alternate-exchange")
        if found or alternate not in self._exchanges:
            return found
        return self.targets(str(alternate), routing_key)

    def _bound(self, exchange: str, routing_key: str) -> Iterator[str]:
        for binding in self._bindings:
            if binding.exchange == exchange and _matches(
                self._exchanges[exchange], binding.routing_key, routing_key
            ):
                yield binding.queue


@lru_cache(maxsize=10_000)
def topic_matches(pattern: str, routing_key: str) -> bool:
    """AMQP 0-9-1, 3.1.3.3: words between dots, `*` stands for one word and `#` for zero or more."""
    return _words_match(tuple(pattern.split(".")), tuple(routing_key.split(".")))


def _words_match(pattern: tuple[str, ...], words: tuple[str, ...]) -> bool:
    if not pattern:
        return not words
    if pattern[0] == "#":
        return any(_words_match(pattern[1:], words[skipped:]) for skipped in range(len(words) + 1))
    return bool(words) and pattern[0] in ("*", words[0]) and _words_match(pattern[1:], words[1:])


def _matches(exchange: Exchange, key: str, routing_key: str) -> bool:
    match exchange.kind:
        case "topic":
            return topic_matches(key, routing_key)
        case "direct":
            return key == routing_key
        case "fanout":
            return True


def mismatch(argument: str, kind: str, name: str, wanted: object, current: object) -> str:
    """What RabbitMQ says, word for word but for the virtual host."""
    return f"inequivalent arg '{argument}' for {kind} '{name}': received {_quoted(wanted)} but current is {_quoted(current)}"


def _quoted(value: object) -> str:
    return "none" if value is None else f"'{value}'"


Difference = tuple[str, object, object]


def difference(wanted: Mapping[str, object], current: Mapping[str, object]) -> Difference | None:
    """The first argument in which two declarations differ, what was wanted, and what is."""
    for name in sorted(wanted.keys() | current.keys()):
        if wanted.get(name) != current.get(name):
            return name, wanted.get(name), current.get(name)
    return None
