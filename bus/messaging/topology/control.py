"""Topology of the control channel: its exchange, its queues, and the addresses of its messages.

Every live instance has an exclusive queue, which the broker deletes with the connection. The queue
is bounded: the broker drops the oldest messages of a full queue, and messages that wait too long.
"""

import re

from bus.messaging.topology.addresses import Address
from bus.messaging.topology.model import Argument, Binding, Exchange, Queue, Topology
from bus.messaging.topology.names import CONTROL

__all__ = [
    "ALL_ANNOUNCEMENTS",
    "COMMANDS",
    "CONTROL_EXCHANGE",
    "CONTROL_TTL_MS",
    "announcement_key",
    "announcement_topology",
    "answer_key",
    "asker_topology",
    "control_address",
    "control_topology",
    "is_answer_key_of",
    "question_key",
]

COMMANDS = "bus"
"""Name of a command in the address of its answers. No service can have this name."""
ALL_ANNOUNCEMENTS = "announce.*"
MAX_CONTROL_MESSAGES = 10_000
"""Maximum number of messages that wait in a queue of the control channel."""
MAX_CONTROL_BYTES = 64 * 1024 * 1024
"""Maximum bytes of the messages that wait in a queue of the control channel."""
CONTROL_TTL_MS = 60_000
"""Milliseconds after which the broker drops a message that waits in a queue."""
LIMITS: dict[str, Argument] = {
    "x-max-length": MAX_CONTROL_MESSAGES,
    "x-max-length-bytes": MAX_CONTROL_BYTES,
    "x-message-ttl": CONTROL_TTL_MS,
}
INSTANCE = re.compile(r"[A-Za-z0-9_.-]{1,150}")
"""Pattern of the name of an instance. The permissions of broker users allow these characters."""

CONTROL_EXCHANGE = Topology(exchanges=(Exchange(name=CONTROL, kind="topic"),))
"""The exchange of the control channel.

It is not one of `BASE_EXCHANGES`: a service without the exchange works, and has no discovery.
"""


def question_key(service: str | None = None, instance: str | None = None) -> str:
    """Return the routing key of a question to all instances, to a service or to one instance."""
    if service is None:
        return "ask.all"
    if instance is None:
        return f"ask.service.{service}"
    return f"ask.instance.{service}.{instance}"


def answer_key(asker: str, instance: str) -> str:
    """Return `answer.<asker>.<instance>`, the routing key of the answers to one asker.

    Args:
        asker: The service that asks, or `COMMANDS`.
        instance: Name of the asking process.
    """
    return f"answer.{asker}.{instance}"


def is_answer_key_of(asker: str, key: str) -> bool:
    """Return True if `key` is an address for answers to `asker`.

    The broker closes the channel of an instance that publishes with another key.
    """
    prefix = answer_key(asker, "")
    return key.startswith(prefix) and INSTANCE.fullmatch(key.removeprefix(prefix)) is not None


def announcement_key(service: str) -> str:
    """Return `announce.<service>`, the routing key of a service's announcements."""
    return f"announce.{service}"


def control_address(key: str) -> Address:
    """Return the address of a message on the control channel. A lost message does no harm."""
    return Address(exchange=CONTROL, routing_key=key, mandatory=False, confirmed=False)


def control_topology(service: str, instance: str) -> Topology:
    """Return the topology of a live instance, which answers questions and can ask them."""
    keys = (
        question_key(),
        question_key(service),
        question_key(service, instance),
        answer_key(service, instance),
    )
    return _bound(f"{service}.control.{instance}", keys)


def asker_topology(asker: str, instance: str) -> Topology:
    """Return the topology of a command, which only asks.

    Args:
        asker: The service that asks, or `COMMANDS`.
        instance: Name of the asking process.
    """
    return _bound(f"{asker}.control.{instance}", (answer_key(asker, instance),))


def announcement_topology(listener: str, instance: str) -> Topology:
    """Return the topology of a queue that receives the announcements of all services.

    Args:
        listener: The service that listens, or `COMMANDS`.
        instance: Name of the queue, unique for each listener.
    """
    return _bound(f"{listener}.announcements.{instance}", (ALL_ANNOUNCEMENTS,))


def _bound(name: str, keys: tuple[str, ...]) -> Topology:
    queue = Queue(name=name, role="control", durable=False, exclusive=True, arguments=LIMITS)
    return CONTROL_EXCHANGE | Topology(
        queues=(queue,),
        bindings=tuple(Binding(exchange=CONTROL, queue=name, routing_key=key) for key in keys),
    )
