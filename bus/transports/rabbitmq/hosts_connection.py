"""aio-pika's robust connection to one of several hosts, for FastStream's broker.

aio-pika reconnects to the same host for ever. This connection takes the next host for each attempt,
and refuses a host of another cluster.
"""

import asyncio
import logging
from collections.abc import Sequence
from typing import Any

from aio_pika import RobustConnection as AioPikaConnection
from aiormq.exceptions import AMQPConnectionError
from typing_extensions import override
from yarl import URL

from bus.errors import ConfigurationError
from bus.messaging.broker_addresses import BrokerUrl
from bus.transports.rabbitmq.cluster import Cluster
from bus.transports.rabbitmq.connection import connection_url
from bus.transports.rabbitmq.exceptions import to_bus_error
from bus.transports.rabbitmq.handshake import CLUSTER, properties_of

__all__ = ["HostRotation", "HostsConnection"]

log = logging.getLogger("bus.faststream")


class HostRotation:
    """The hosts of a broker. All connections of a FastStream broker share them."""

    def __init__(self, hosts: Sequence[BrokerUrl], *, heartbeat: int, name: str) -> None:
        """Begin with the first host.

        Args:
            hosts: The broker's hosts.
            heartbeat: The heartbeat interval in seconds.
            name: The name of the connection in RabbitMQ's UI.
        """
        self.hosts = tuple(hosts)
        self.name = name
        self.password: str | None = None
        """The password for the next attempt to connect. None: the password in the host's URL."""
        self.reasons: dict[str, str] = {}
        """The last reason why each host was not connected, since the last connection."""
        self._heartbeat = heartbeat
        self._attempts = 0

    @property
    def current(self) -> BrokerUrl:
        """The host of this attempt to connect."""
        return self.hosts[self._attempts % len(self.hosts)]

    @property
    def url(self) -> URL:
        """The current host's URL with its password, heartbeat and name."""
        host = self.current
        if self.password is not None:
            host = host.with_password(self.password)
        return URL(connection_url(host.text, heartbeat=self._heartbeat, name=self.name))

    def advance(self) -> None:
        """Take the next host for the next attempt."""
        self._attempts += 1


class HostsConnection(AioPikaConnection):
    """A robust connection. Each attempt to connect takes the next host of a rotation."""

    def __init__(self, _url: URL, *, rotation: HostRotation, **options: Any) -> None:
        """Create a connection that is not open. The rotation's URL replaces FastStream's."""
        super().__init__(rotation.url, **options)
        self._rotation = rotation
        self._cluster = Cluster.of(rotation.hosts)
        self._is_refused = False
        """True if the bus has just closed the connection to a host of another cluster."""

    @override
    async def _on_connected(self) -> None:
        """Check the broker's cluster before aio-pika restores channels on this connection."""
        place = self._rotation.current.place
        try:
            self._cluster.join(self, place, properties_of(self).get(CLUSTER))
        except ConfigurationError as error:
            self._is_refused = True
            self._report(place, str(error))
            if self.transport is not None:
                await asyncio.gather(self.transport.connection.close(), return_exceptions=True)
            # aio-pika tries again only after an error of a connection.
            raise AMQPConnectionError(str(error)) from None
        self._rotation.reasons.clear()
        await super()._on_connected()

    @override
    async def _on_connection_close(self, closing: "asyncio.Future[Any]") -> None:
        """Take the next host. aio-pika also calls this method after a failed attempt."""
        self._cluster.leave(self)
        place = self._rotation.current.place
        if not self.connected.is_set() and not self._is_refused and not closing.cancelled():
            error = closing.exception() or ConnectionError("the connection was closed")
            self._report(place, str(to_bus_error(error, f"connecting to {place}")))
        self._is_refused = False
        self._rotation.advance()
        self.url = self._rotation.url
        await super()._on_connection_close(closing)

    def _report(self, place: str, reason: str) -> None:
        if self._rotation.reasons.get(place) != reason:
            log.warning(
                "%s: cannot connect (%s); trying again",
                self._rotation.name,
                reason,
                extra={"link": self._rotation.name, "broker": place, "why": reason},
            )
        self._rotation.reasons[place] = reason
