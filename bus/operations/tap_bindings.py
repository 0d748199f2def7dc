"""The bindings of a tap that cannot lose a message.

A sender of requests and jobs receives an error if no queue takes the message (`mandatory`). A
queue of a tap would take it, too. The sender of a job would then receive a confirm, although no
service ever handles the job. So a tap never receives jobs, and receives only requests for which a
queue exists. Events are not mandatory, so their tap can use a pattern (ADR 0036).
"""

from collections.abc import Collection, Iterable, Mapping

from bus.contracts.contract import Kind
from bus.messaging.topology.model import Binding
from bus.messaging.topology.names import REQUESTS, parse_queue_name
from bus.messaging.topology.topic_pattern import topic_matches

__all__ = ["GUARDED", "Key", "served_keys"]

Key = tuple[str, str]
"""(exchange, routing key)."""
GUARDED: Mapping[Kind, str] = {"request": REQUESTS}
"""Exchanges of mandatory messages that a tap can receive."""


def served_keys(
    bindings: Iterable[Binding], kinds: Collection[Kind], pattern: str
) -> frozenset[Key]:
    """Return the keys of requests for which a queue of a service is bound.

    Args:
        bindings: All bindings of queues.
        kinds: Kinds of messages to tap.
        pattern: Topic pattern that the keys must match.
    """
    exchanges = {GUARDED[kind] for kind in kinds if kind in GUARDED}
    return frozenset(
        (binding.exchange, binding.routing_key)
        for binding in bindings
        if binding.exchange in exchanges
        and parse_queue_name(binding.queue) is not None
        and topic_matches(pattern, binding.routing_key)
    )
