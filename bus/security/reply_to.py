"""Return addresses: the permitted values of `reply_to` in a request or job.

A sender can write any text into `reply_to`. If the broker refuses a reply, it closes the channel.
The bus sends other replies on the same channel. So the bus replies only to addresses that the
broker's permissions allow (`bus.operations.topology.permissions`).
"""

import re
from functools import lru_cache

from bus.messaging.topology.names import reply_queue

__all__ = ["is_direct_reply_to", "is_reply_queue_of"]

# The broker's permission patterns allow the same characters. The `$` in the broker's patterns
# matches before a final line end. This module uses `fullmatch`, which rejects a line end.
NAME = re.compile(r"[A-Za-z0-9_.-]+")
DIRECT = re.compile(r"amq\.rabbitmq\.reply-to\.[A-Za-z0-9+/=_.-]+")


# Cached, because a caller sends the same address with each message.
@lru_cache(maxsize=4096)
def is_reply_queue_of(service: str, reply_to: str) -> bool:
    """Return True if `reply_to` is the name of a reply queue of `service`."""
    prefix = reply_queue(service, "")
    return (
        reply_to.startswith(prefix) and reply_to != prefix and NAME.fullmatch(reply_to) is not None
    )


def is_direct_reply_to(reply_to: str) -> bool:
    """Return True if `reply_to` is an address of RabbitMQ's direct reply-to.

    The broker creates these addresses, and replies to them go through the default exchange.
    """
    return DIRECT.fullmatch(reply_to) is not None
