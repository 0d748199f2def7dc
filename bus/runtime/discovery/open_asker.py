"""The asker of a command: it asks in the name of an operator or a service, and serves nothing."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from bus.errors import BusError
from bus.messaging.ports.transport import Transport
from bus.messaging.topology.control import COMMANDS, asker_topology
from bus.runtime.discovery.asker import Asker
from bus.runtime.discovery.asking import find_asking
from bus.runtime.discovery.control_asker import ControlAsker
from bus.runtime.discovery.control_link import ControlLink, Member
from bus.runtime.discovery.discovery import NoDiscovery
from bus.runtime.life_cycle import new_instance
from bus.settings import Settings
from bus.transports.rabbitmq import RabbitMQTransport

__all__ = ["open_asker"]

Clock = Callable[[], float]


class NoListener:
    """A listener for failures of sends. A command sends nothing that can fail later."""

    def on_return(self, message_id: str, reason: str) -> None:
        """Do nothing."""

    def on_publish_failed(self, message_id: str, error: BusError) -> None:
        """Do nothing."""

    def on_connection_lost(self) -> None:
        """Do nothing: a question without answers ends with its window."""


@asynccontextmanager
async def open_asker(
    settings: Settings,
    *,
    service: str | None = None,
    transport: Transport | None = None,
    clock: Clock = time.time,
) -> AsyncIterator[Asker]:
    """Connect to the broker, and yield an object that asks live instances.

    With `BUS_AUTH=on` the questions are signed with the operator's key, and the operator needs the
    grant `control.read`. Without an operator's key they are signed with the key of a service, which
    needs the grant `control = ["read"]`. Without this grant it may only ask whether the services
    that it calls are alive. With `BUS_AUTH=dev` questions are signed with the secret of all
    services.

    Args:
        settings: The settings. `jwks`, and `operator_key` or `key`, are required with
            `BUS_AUTH=on`.
        service: The service that asks. None: the operator, or the only owner of `key`.
        transport: The transport; by default RabbitMQ at the setting `url`.
        clock: A function that returns seconds since the epoch.

    Yields:
        The asker. It can be used until the end of the block.

    Raises:
        ContractError: `service` is not a valid name.
        ConfigurationError: A key or the grants are missing or invalid. Or `key` names several
            services, and `service` is None.
        Unavailable: No broker accepted the connection in time.
        Unauthenticated: Every host of the broker refused the user name or the password.
    """
    if settings.discovery == "off":
        yield NoDiscovery()
        return
    asking = await find_asking(settings, service, clock)
    transport = transport or RabbitMQTransport(settings, name=COMMANDS, clock=clock)
    member = Member(
        source=asking.name,
        receiver=asking.receiver,
        instance=new_instance(),
        transport=transport,
        guard=asking.guard,
        max_body_bytes=settings.max_message,
        leeway=settings.clock_leeway,
        clock=clock,
    )
    link = ControlLink(member, asker_topology(member.receiver, member.instance))
    asker = ControlAsker(member, link)
    reader = asyncio.create_task(asking.ring.run()) if asking.ring is not None else None
    try:
        await transport.start(NoListener(), timeout=settings.connect_timeout)
        await link.open(asker.on_answer)
        yield asker
    finally:
        if reader is not None:
            reader.cancel()
        await asker.close()
        await link.close()
        await transport.close()
        if asking.ring is not None:
            await asking.ring.close()
