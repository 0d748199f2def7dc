"""Return addresses: what a request or job may say of where its answer goes.

Anyone can write anything into `reply_to`. An answer that the broker refuses costs the channel on which others are answered, too. So a
return address is held to the form that the broker's permissions have for it (`bus.operations.topology.permissions`).
"""

import re
from functools import lru_cache

from bus.messaging.topology.names import reply_queue

__all__ = ["is_direct_reply_to", "is_reply_queue_of"]

# RabbitMQ's patterns know no other letters, and its `$` would let a line end pass.
NAME = re.compile(r"[A-Za-z0-9_.-]+")
DIRECT = re.compile(r"amq\.rabbitmq\.reply-to\.[A-Za-z0-9+/=_.-]+")


@lru_cache(maxsize=4096)  # each caller has one, and it comes with each of his messages
def is_reply_queue_of(service: str, reply_to: str) -> bool:
    """Whether it is the name of a queue for replies of `service`."""
    beginning = reply_queue(service, "")
    return (
        reply_to.startswith(beginning)
        and reply_to != beginning
        and NAME.fullmatch(reply_to) is not None
    )


def is_direct_reply_to(reply_to: str) -> bool:
    """Whether it is RabbitMQ's direct reply-to. The broker itself says whose that is, and answers go through the default exchange."""
    return DIRECT.fullmatch(reply_to) is not None
