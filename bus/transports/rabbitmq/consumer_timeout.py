"""For how long a consumer may hold what it was given: from RabbitMQ 4.3 on it says so itself, for a quorum queue."""

from collections.abc import Mapping

from pamqp.common import FieldTable

__all__ = ["consumer_arguments", "supports_consumer_timeout"]

SUPPORTED_SINCE = (4, 3)
"""Tried: 4.3.6 takes a consumer's word before that of the queue, a policy or the node, the longer one, too. 3.10.8 and 4.0.5 ignore it."""
ARGUMENT = "x-consumer-timeout"
MAX_CONSUMER_TIMEOUT_SECONDS = 365 * 24 * 3600.0
"""Seconds. 4.3.6 takes numbers with which its queue then stands still."""


def supports_consumer_timeout(properties: Mapping[str, object], queue_type: object) -> bool:
    """Whether the broker with these properties lets consumers of such a queue say it. For a classic queue 4.3 refuses the argument."""
    if properties.get("product") != "RabbitMQ" or queue_type != "quorum":
        return False
    numbers = [part for part in str(properties.get("version", "")).split(".")[:2] if part.isdigit()]
    return tuple(map(int, numbers)) >= SUPPORTED_SINCE


def consumer_arguments(consumer_timeout: float) -> FieldTable:
    """What a consumer says that may hold a delivery for `patience` seconds."""
    return {ARGUMENT: int(min(consumer_timeout, MAX_CONSUMER_TIMEOUT_SECONDS) * 1000)}
