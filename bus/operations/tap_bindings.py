"""The bindings of a tap that cannot change the fate of a message.

A sender of requests and jobs receives an error if no queue takes the message (`mandatory`). A
queue of a tap would take it, too. The sender of a job would then receive a confirm, although no
service ever handles the job. So a tap is bound to these exchanges only by the keys of queues that
exist. Events are not mandatory, so their tap can use a pattern (ADR 0036).
"""

from collections.abc import Collection, Iterable, Mapping

from bus.contracts.contract import Kind
from bus.errors import FailedPrecondition
from bus.messaging.topology.model import Binding
from bus.messaging.topology.names import JOBS, REQUESTS, parse_queue_name, routing_key_of
from bus.messaging.topology.topic_pattern import topic_matches
from bus.transports.rabbitmq.tap import TAP_PREFIX

__all__ = ["GUARDED", "Key", "check_not_tapped", "served_keys"]

Key = tuple[str, str]
"""(exchange, routing key)."""
GUARDED: Mapping[Kind, str] = {"request": REQUESTS, "job": JOBS}
"""Exchanges of messages that are mandatory."""


def served_keys(
    bindings: Iterable[Binding], kinds: Collection[Kind], pattern: str
) -> frozenset[Key]:
    """Return the keys of requests and jobs for which a queue of a service is bound.

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


def check_not_tapped(queues: Iterable[str], bindings: Iterable[Binding]) -> None:
    """Check that no tap receives the jobs of these queues.

    If one of the queues is unbound, the broker would confirm a job that reaches only the tap.

    Args:
        queues: Names of queues that a caller will unbind.
        bindings: All bindings of queues.

    Raises:
        FailedPrecondition: A tap receives the jobs of one of the queues.
    """
    tapped = {
        (binding.exchange, binding.routing_key)
        for binding in bindings
        if binding.queue.startswith(TAP_PREFIX)
    }
    for queue in queues:
        if (JOBS, routing_key_of(queue)) in tapped:
            raise FailedPrecondition(
                f"{queue} is watched, so it must not be unbound: the watch would take its jobs. "
                "End `bus watch`, and run the command again."
            )
