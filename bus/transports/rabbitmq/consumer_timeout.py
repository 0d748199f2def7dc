"""The consumer timeout. It limits the time between a delivery and the ack of the delivery.

Since RabbitMQ 4.3, a consumer of a quorum queue can set its own timeout with the argument
`x-consumer-timeout`.
"""

from collections.abc import Mapping

from pamqp.common import FieldTable

__all__ = ["consumer_arguments", "supports_consumer_timeout"]

SUPPORTED_SINCE = (4, 3)
"""The first RabbitMQ version that supports a consumer's own timeout.

In tests, RabbitMQ 4.3.6 used the consumer's timeout, even if the queue, a policy or the node
had a shorter timeout. RabbitMQ 3.10.8 and 4.0.5 ignored the consumer's timeout.
"""
ARGUMENT = "x-consumer-timeout"
MAX_CONSUMER_TIMEOUT_SECONDS = 365 * 24 * 3600.0
"""Maximum consumer timeout, in seconds.

RabbitMQ 4.3.6 accepts larger timeouts, but some larger timeouts stall the queue.
"""


def supports_consumer_timeout(properties: Mapping[str, object], queue_type: object) -> bool:
    """Return True if the broker supports a consumer's own timeout for this type of queue.

    RabbitMQ 4.3 refuses the argument `x-consumer-timeout` for a classic queue.

    Args:
        properties: The server properties of the connection.
        queue_type: The value of the queue's argument `x-queue-type`.
    """
    if properties.get("product") != "RabbitMQ" or queue_type != "quorum":
        return False
    numbers = [part for part in str(properties.get("version", "")).split(".")[:2] if part.isdigit()]
    return tuple(map(int, numbers)) >= SUPPORTED_SINCE


def consumer_arguments(consumer_timeout: float) -> FieldTable:
    """Return the consumer arguments that set a timeout of `consumer_timeout` seconds."""
    return {ARGUMENT: int(min(consumer_timeout, MAX_CONSUMER_TIMEOUT_SECONDS) * 1000)}
