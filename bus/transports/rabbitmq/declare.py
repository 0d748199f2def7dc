"""Functions that declare a topology at the broker, or check that a topology exists.

If `BUS_TOPOLOGY=verify` is set, an administrator creates the topology, and the bus only checks it.
"""

from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import replace

from aiormq.channel import Channel
from aiormq.exceptions import ChannelAccessRefused, ChannelLockedResource, ChannelNotFoundEntity

from bus.errors import ConfigurationError
from bus.messaging.topology.model import Queue, Topology

__all__ = ["declare", "declare_again", "declare_own", "find_missing"]

ATTEMPTS = 5
"""Maximum declarations of a topology while another client deletes its objects."""

Open = Callable[[], Awaitable[Channel]]


async def declare(channel: Channel, topology: Topology, *, timeout: float) -> None:
    """Declare a topology.

    If an object already exists with different arguments, the broker closes the channel.

    Args:
        channel: The channel for the calls.
        topology: The exchanges, queues and bindings to create.
        timeout: Seconds for each call.
    """
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


async def declare_again(open_channel: Open, topology: Topology, *, timeout: float) -> None:
    """Declare a topology. Declare it again if another client deletes one of its objects.

    `bus topology prune` can delete an unused queue just before a worker binds it.

    Args:
        open_channel: Function that opens a channel. A failed declaration closes its channel.
        topology: The exchanges, queues and bindings to create.
        timeout: Seconds for each call.
    """
    for _ in range(ATTEMPTS - 1):
        with suppress(ChannelNotFoundEntity):
            return await declare(await open_channel(), topology, timeout=timeout)
    return await declare(await open_channel(), topology, timeout=timeout)


async def declare_own(
    open_channel: Open, topology: Topology, broker_names: Mapping[str, str], *, timeout: float
) -> dict[str, str]:
    """Declare the exclusive queues only. Check that exchanges and shared queues exist.

    The check uses passive declarations. They cannot check arguments or bindings. The broker
    generates the names of the exclusive queues (ADR 0020).

    Args:
        open_channel: Function that opens a channel of the connection.
        topology: The topology of the service.
        broker_names: The result of the previous call, or an empty mapping for the first call.
        timeout: Seconds for each call.

    Returns:
        A mapping from the name of each exclusive queue in `topology` to its generated name.

    Raises:
        ConfigurationError: Exchanges or shared queues do not exist. The error text names them.
    """
    missing = await find_missing(open_channel, topology, timeout=timeout)
    if missing:
        raise ConfigurationError(
            f"the broker has no {', no '.join(missing)}. With BUS_TOPOLOGY=verify the service does"
            " not create them. Let an administrator import the output of `bus topology export`."
        )
    names = {
        queue.name: await _declare_exclusive(
            open_channel, queue, broker_names.get(queue.name), timeout=timeout
        )
        for queue in topology.queues
        if queue.exclusive
    }
    bindings = [
        replace(binding, queue=names[binding.queue])
        for binding in topology.bindings
        if binding.queue in names
    ]
    if bindings:
        await declare(await open_channel(), Topology(bindings=tuple(bindings)), timeout=timeout)
    return names


async def _declare_exclusive(
    open_channel: Open, queue: Queue, broker_name: str | None, *, timeout: float
) -> str:
    """Return the generated name of an exclusive queue. If the queue does not exist, declare it."""
    if broker_name is not None:
        try:
            await (await open_channel()).queue_declare(broker_name, passive=True, timeout=timeout)
        except (ChannelNotFoundEntity, ChannelLockedResource):
            pass  # the earlier connection has ended, and the broker deletes its exclusive queue
        else:
            return broker_name
    declared = await (await open_channel()).queue_declare(
        "", durable=queue.durable, exclusive=True, arguments=dict(queue.arguments), timeout=timeout
    )
    return declared.queue or ""


async def find_missing(open_channel: Open, topology: Topology, *, timeout: float) -> list[str]:
    """Return the missing exchanges and shared queues, as `exchange <name>` and `queue <name>`.

    Since RabbitMQ 4.2.6, the broker refuses the passive declaration of an exchange for which the
    user has no permission. The function does not report such an exchange as missing: the service
    does not publish to the exchange, and the administrator creates the bindings.

    Args:
        open_channel: Function that opens a channel. The function is called again if the
            broker has closed the channel.
        topology: The topology to check.
        timeout: Seconds for each call.
    """
    checks = [
        (f"exchange {exchange.name}", "exchange", exchange.name) for exchange in topology.exchanges
    ]
    checks += [
        (f"queue {queue.name}", "queue", queue.name)
        for queue in topology.queues
        if not queue.exclusive
    ]
    missing: list[str] = []
    channel: Channel | None = None
    for title, kind, name in checks:
        channel = await open_channel() if channel is None or channel.is_closed else channel
        try:
            if kind == "exchange":
                await channel.exchange_declare(name, passive=True, timeout=timeout)
            else:
                await channel.queue_declare(name, passive=True, timeout=timeout)
        except ChannelAccessRefused:
            if kind != "exchange":
                raise  # the service uses each queue, so a missing permission is an error
            channel = None
        except ChannelNotFoundEntity as error:
            if f"no {kind}" not in str(error):
                raise  # the queue exists, but its node is down
            missing.append(title)
            channel = None
    return missing
