"""Export of a topology to RabbitMQ's definitions: https://www.rabbitmq.com/docs/definitions."""

from typing import Any

from bus.messaging.topology.model import Topology

__all__ = ["definitions"]

DURABLE = {"durable": True, "auto_delete": False}


def definitions(topology: Topology, *, vhost: str = "/") -> dict[str, Any]:
    """Return the exchanges, queues and bindings as RabbitMQ's definitions.

    The objects are sorted, so two files differ only if their topologies differ. Exclusive queues
    and their bindings are left out, because an exclusive queue belongs to a connection.
    """
    location = {"vhost": vhost}
    exclusive = {queue.name for queue in topology.queues if queue.exclusive}
    return {
        "vhosts": [{"name": vhost}],
        "exchanges": [
            {
                "name": exchange.name,
                **location,
                "type": exchange.kind,
                **DURABLE,
                "internal": False,
                "arguments": dict(exchange.arguments),
            }
            for exchange in sorted(topology.exchanges, key=lambda exchange: exchange.name)
        ],
        "queues": [
            {"name": queue.name, **location, **DURABLE, "arguments": dict(queue.arguments)}
            for queue in sorted(topology.queues, key=lambda queue: queue.name)
            if queue.name not in exclusive
        ],
        "bindings": [
            {
                "source": binding.exchange,
                **location,
                "destination": binding.queue,
                "destination_type": "queue",
                "routing_key": binding.routing_key,
                "arguments": {},
            }
            for binding in sorted(
                topology.bindings,
                key=lambda binding: (binding.exchange, binding.queue, binding.routing_key),
            )
            if binding.queue not in exclusive
        ],
    }
