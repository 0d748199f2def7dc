"""A topology onto the broker, or, where others manage the broker, a look whether it is there."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace

from aiormq.channel import Channel
from aiormq.exceptions import ChannelAccessRefused, ChannelLockedResource, ChannelNotFoundEntity

from bus.errors import ConfigurationError
from bus.messaging.topology.model import Queue, Topology

__all__ = ["declare", "declare_own", "find_missing"]

Open = Callable[[], Awaitable[Channel]]


async def declare(channel: Channel, topology: Topology, *, timeout: float) -> None:
    """Make it exist; `timeout` in seconds for each call. The broker closes the channel where one exists with other arguments."""
    for exchange in topology.exchanges:
        await channel.exchange_declare(
            exchange.name,
            exchange_type=exchange.kind,
            durable=True,
            arguments=dict(exchange.arguments),
            timeout=timeout,
        )
    for queue in topology.queues:
        await channel.queue_declare(
            queue.name,
            durable=queue.durable,
            exclusive=queue.exclusive,
            arguments=dict(queue.arguments),
            timeout=timeout,
        )
    for binding in topology.bindings:
        await channel.queue_bind(
            binding.queue, binding.exchange, routing_key=binding.routing_key, timeout=timeout
        )


async def declare_own(
    opened: Open, topology: Topology, given: Mapping[str, str], *, timeout: float
) -> dict[str, str]:
    """Make only what lives and dies with this connection; `ConfigurationError` names all else that is not there.

    A passive declaration says whether something exists, and nothing of its arguments; bindings it cannot see at all.
    The broker names what is made (ADR 0020), and the answer is those names by ours; `given` is the last one.
    """
    missing = await find_missing(opened, topology, timeout=timeout)
    if missing:
        raise ConfigurationError(
            f"the broker has no {', no '.join(missing)}; with BUS_TOPOLOGY=verify others make them, from what `bus topology export` prints"
        )
    names = {
        queue.name: await _own(opened, queue, given.get(queue.name), timeout=timeout)
        for queue in topology.queues
        if queue.exclusive
    }
    bindings = [
        replace(each, queue=names[each.queue]) for each in topology.bindings if each.queue in names
    ]
    if bindings:
        await declare(await opened(), Topology(bindings=tuple(bindings)), timeout=timeout)
    return names


async def _own(opened: Open, queue: Queue, known: str | None, *, timeout: float) -> str:
    """The name of a queue of this connection's own: of the one that it has, or of a new one."""
    if known is not None:
        try:
            await (await opened()).queue_declare(known, passive=True, timeout=timeout)
        except (ChannelNotFoundEntity, ChannelLockedResource):
            pass  # it was a connection's that is gone, or goes
        else:
            return known
    made = await (await opened()).queue_declare(
        "", durable=queue.durable, exclusive=True, arguments=dict(queue.arguments), timeout=timeout
    )
    return made.queue or ""


async def find_missing(opened: Open, topology: Topology, *, timeout: float) -> list[str]:
    """What is not there of the exchanges, and of the queues that are not a connection's own: `queue <name>`.

    RabbitMQ from 4.2.6 on shows an exchange only to who has some right to it. One that is not shown counts as there: this service
    neither publishes to it nor binds anything to it, and what its queues get from there is others' to make.
    """
    checks = [(f"exchange {each.name}", "exchange", each.name) for each in topology.exchanges]
    checks += [
        (f"queue {each.name}", "queue", each.name) for each in topology.queues if not each.exclusive
    ]
    found: list[str] = []
    channel: Channel | None = None
    for shown, kind, name in checks:
        channel = await opened() if channel is None or channel.is_closed else channel
        try:
            if kind == "exchange":
                await channel.exchange_declare(name, passive=True, timeout=timeout)
            else:
                await channel.queue_declare(name, passive=True, timeout=timeout)
        except ChannelAccessRefused:
            if kind != "exchange":
                raise  # it is consumed, or written to
            channel = None
        except ChannelNotFoundEntity as error:
            if f"no {kind}" not in str(error):
                raise  # it is there, and its node is down
            found.append(shown)
            channel = None
    return found
