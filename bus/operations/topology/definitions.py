"""A topology as the file that RabbitMQ imports: https://www.rabbitmq.com/docs/definitions."""

from typing import Any

from bus.messaging.topology.model import Topology

__all__ = ["definitions"]

LASTING = {"durable": True, "auto_delete": False}


def definitions(topology: Topology, *, vhost: str = "/") -> dict[str, Any]:
    """Its exchanges, queues and bindings, sorted, so that two files differ where the topologies do. Nothing that a connection owns."""
    place = {"vhost": vhost}
    own = {queue.name for queue in topology.queues if queue.exclusive}
    return {
        "vhosts": [{"name": vhost}],
        "exchanges": [
            {
                "name": each.name,
                **place,
                "type": each.kind,
                **LASTING,
                "internal": False,
                "arguments": dict(each.arguments),
            }
            for each in sorted(topology.exchanges, key=lambda each: each.name)
        ],
        "queues": [
            {"name": each.name, **place, **LASTING, "arguments": dict(each.arguments)}
            for each in sorted(topology.queues, key=lambda each: each.name)
            if each.name not in own
        ],
        "bindings": [
            {
                "source": each.exchange,
                **place,
                "destination": each.queue,
                "destination_type": "queue",
                "routing_key": each.routing_key,
                "arguments": {},
            }
            for each in sorted(
                topology.bindings, key=lambda each: (each.exchange, each.queue, each.routing_key)
            )
            if each.queue not in own
        ],
    }
