"""The check whether the broker works, if no instance answers a question.

The broker does not confirm a question. So silence can mean that no instance is live, or that the
broker itself is silent, for example because its process is stopped.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import Final

from bus.errors import BusError, Unavailable
from bus.messaging.service_info import InstanceState, InstanceStats
from bus.messaging.topology.names import CONTROL

__all__ = ["Depth", "check_broker", "queue_of"]

CHECK_SECONDS: Final = 2.0
"""Maximum seconds to wait for the answer of the broker."""

Depth = Callable[[str], Awaitable[int]]
"""Function that returns the number of messages in a queue: `Transport.depth`."""


async def check_broker(depth: Depth, queue: str | None) -> None:
    """Check that the broker answers on the open connection.

    Args:
        depth: The function that asks the broker.
        queue: A queue of a live instance. None: no queue is known, and the broker refuses the call.

    Raises:
        Unavailable: The broker does not answer.
    """
    try:
        async with asyncio.timeout(CHECK_SECONDS):
            await depth(queue or CONTROL)
    except TimeoutError:
        raise Unavailable(
            f"the broker does not answer within {CHECK_SECONDS:g} s. Check that its process runs."
        ) from None
    except Unavailable:
        raise
    except BusError:
        pass  # a refusal is an answer, for example if the queue was deleted


def queue_of(records: Iterable[InstanceState]) -> str | None:
    """Return the name of a queue, if possible one that a query does not keep from expiring."""
    handlers = [
        handler for each in records if isinstance(each, InstanceStats) for handler in each.handlers
    ]
    lasting = [each.queue for each in handlers if each.kind != "request"]
    return next(iter([*lasting, *(each.queue for each in handlers)]), None)
