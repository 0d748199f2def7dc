"""The asker of a command: it asks in the name of an operator, and serves nothing."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from bus.errors import BusError
from bus.messaging.ports.transport import Transport
from bus.messaging.topology.control import COMMANDS, asker_topology
from bus.runtime.discovery.asker import Asker
from bus.runtime.discovery.control_asker import ControlAsker
from bus.runtime.discovery.control_link import ControlLink, Member
from bus.runtime.discovery.discovery import NoDiscovery
from bus.runtime.life_cycle import new_instance
from bus.runtime.security import grants_source, operator_keyring
from bus.security.control_security import (
    OPEN_CONTROL,
    ControlGuard,
    ControlSecurity,
    Subject,
)
from bus.security.current_grants import CurrentGrants
from bus.security.keyring import Keyring
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


@dataclass(frozen=True, slots=True)
class Asking:
    """The person or program that asks."""

    name: str
    guard: ControlGuard
    ring: Keyring | None = None


@asynccontextmanager
async def open_asker(
    settings: Settings, *, transport: Transport | None = None, clock: Clock = time.time
) -> AsyncIterator[Asker]:
    """Connect to the broker, and yield an object that asks live instances.

    With `BUS_AUTH=on` the questions are signed with the operator's key, and the operator needs the
    grant `control.read`. With `BUS_AUTH=dev` they are signed with the secret of all services.

    Args:
        settings: The settings. `operator_key` and `jwks` are required with `BUS_AUTH=on`.
        transport: The transport; by default RabbitMQ at the setting `url`.
        clock: A function that returns seconds since the epoch.

    Yields:
        The asker. It can be used until the end of the block.

    Raises:
        ConfigurationError: The operator's key or the grants are missing or invalid.
        Unavailable: No broker accepted the connection in time.
        Unauthenticated: Every host of the broker refused the user name or the password.
    """
    if settings.discovery == "off":
        yield NoDiscovery()
        return
    asking = await _asking(settings, clock)
    transport = transport or RabbitMQTransport(settings, name=COMMANDS, clock=clock)
    member = Member(
        source=asking.name,
        receiver=COMMANDS,
        instance=new_instance(),
        transport=transport,
        guard=asking.guard,
        max_body_bytes=settings.max_message,
        leeway=settings.clock_leeway,
        clock=clock,
    )
    link = ControlLink(member, asker_topology(member.instance))
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


async def _asking(settings: Settings, clock: Clock) -> Asking:
    """Return the name, the security and the keys of the person or program that asks."""
    if settings.auth == "off":
        return Asking(COMMANDS, OPEN_CONTROL)
    ring = await operator_keyring(settings, "a question to live services", clock)
    name = ring.signing_key().key.owner
    grants = None
    if settings.grants is not None:
        grants = CurrentGrants(grants_source(settings.grants))
        grants.read()
    subject = Subject(
        name=name or COMMANDS,
        role="service" if name is None else "operator",
        grants_file=settings.grants,
    )
    guard = ControlSecurity(subject, ring, grants, clock=clock, leeway=settings.clock_leeway)
    return Asking(subject.name, guard, ring)
