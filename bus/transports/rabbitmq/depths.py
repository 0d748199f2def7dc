"""How much waits in queues and how many consume them, by passive declaration: nothing is taken out and nothing is made."""

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass

from aio_pika.abc import AbstractConnection
from aiormq.exceptions import AMQPError, ChannelNotFoundEntity

from bus.transports.rabbitmq.probe import connected, reason

__all__ = ["Depth", "depths"]

TIMEOUT = 5.0  # seconds for connecting, and again for one queue; a declaration takes a millisecond


@dataclass(frozen=True, slots=True, kw_only=True)
class Depth:
    """What the broker says of one queue now."""

    ready: int = 0
    consumers: int = 0
    missing: bool = False
    trouble: str | None = None
    """Why it could not be told, in the broker's words; these name objects, never contents."""


async def depths(url: str, names: Iterable[str]) -> dict[str, Depth]:
    """Ask for each of `names`. Errors as of `probe`; what is wrong with a single queue is in its `Depth`.

    A question renews the lease of a queue that expires when nobody uses it: do not ask for request queues again and again.
    """
    wanted = list(names)
    if not wanted:
        return {}
    async with connected(url, TIMEOUT) as connection:
        return {name: await _depth(connection, name) for name in wanted}


async def _depth(connection: AbstractConnection, name: str) -> Depth:
    channel = await connection.channel(publisher_confirms=False)  # its own: the broker closes it where there is no such queue
    try:
        async with asyncio.timeout(TIMEOUT):
            queue = await channel.declare_queue(name, passive=True)
    except ChannelNotFoundEntity as error:
        # The same code for a queue whose node is down, which is there all the same.
        return Depth(missing=True) if "no queue" in reason(error) else Depth(trouble=reason(error))
    except TimeoutError:
        return Depth(trouble=f"no answer within {TIMEOUT:g} s")
    except AMQPError as error:
        return Depth(trouble=reason(error))
    finally:
        if not channel.is_closed and not connection.is_closed:
            await channel.close()
    declared = queue.declaration_result
    return Depth(ready=declared.message_count or 0, consumers=declared.consumer_count or 0)
