"""A connection that opens channels and declares topologies, whether it is up or down."""

import asyncio
import logging
from collections.abc import Sequence
from typing import cast

import aio_pika
import aiormq.abc
from aiormq.channel import Channel
from pydantic import SecretStr

from bus.errors import BusError, Unavailable
from bus.messaging.broker_addresses import BrokerUrl, describe_brokers
from bus.messaging.topology.model import Queue, Topology
from bus.transports.rabbitmq.consumer_timeout import supports_consumer_timeout
from bus.transports.rabbitmq.declare import declare_again, declare_own
from bus.transports.rabbitmq.exceptions import map_errors
from bus.transports.rabbitmq.handshake import properties_of

__all__ = ["Channel", "OpenConnection", "close_quietly"]

log = logging.getLogger("bus.rabbitmq")

RPC_TIMEOUT_SECONDS = 10.0
"""Timeout of one synchronous AMQP call, in seconds.

A call gets no answer, for example, while a quorum queue has no leader.
"""
CLOSE_TIMEOUT_SECONDS = 2.0
"""Seconds to wait for the broker's answer when a channel, consumer or connection is closed."""
BLOCKED_POLL_SECONDS = 1.0
"""Interval in seconds for checking whether a blocked connection was lost."""


class OpenConnection:
    """A connection that opens channels and declares topologies. The connection can be down."""

    def __init__(self, name: str, hosts: Sequence[BrokerUrl], *, verify: bool = False) -> None:
        """Create a connection that is not open.

        Args:
            name: The name in log messages.
            hosts: The broker's hosts. Logs and errors show only host, port and virtual host.
            verify: If True, declare only the exclusive queues of this connection. Do not
                declare exchanges and other queues, but check that they exist.
        """
        self.name = name
        self._verify = verify
        self.up = asyncio.Event()
        self.current_password: SecretStr | None = None
        """The password that was last sent to the broker. Without a password file, it is None."""
        self.last_error: str | None = None
        self._hosts = tuple(hosts)
        self._host = self._hosts[0]
        """The host of the last attempt to connect."""
        self._connection: aio_pika.Connection | None = None
        self._declaring = asyncio.Lock()
        self._broker_names: dict[str, str] = {}

    def _place(self) -> str:
        """Return the broker's host, port and virtual host. Omit the user and the password."""
        return describe_brokers([self._host])

    def _underlay(self) -> aiormq.abc.AbstractConnection:
        if self._connection is None or self._connection.transport is None or not self.up.is_set():
            raise Unavailable(f"the connection to {self._place()} is not open")
        return self._connection.transport.connection

    @property
    def is_up(self) -> bool:
        """True if the connection is up now."""
        return self.up.is_set()

    def use_password_on_reconnect(self, password: SecretStr) -> None:
        """Set the password for the next attempt to connect.

        This implementation does nothing, because `SupervisedConnection` reads the password file at
        each attempt to connect.
        """

    async def update_secret(self, password: SecretStr) -> None:
        """Send a new password to the broker on the open connection.

        The AMQP method is `connection.update-secret`. The timeout is `RPC_TIMEOUT_SECONDS`.
        """
        with map_errors("renewing the password"):
            await self._underlay().update_secret(
                password.get_secret_value(), reason="renewed", timeout=RPC_TIMEOUT_SECONDS
            )
        self.current_password = password

    async def wait_unblocked(self) -> None:
        """Wait until the connection is up and the broker reports no alarm.

        The method has no timeout.
        """
        while True:
            await self.up.wait()
            if not self.up.is_set():
                continue
            try:
                async with asyncio.timeout(BLOCKED_POLL_SECONDS):
                    return await self._underlay().ready()
            except TimeoutError:
                continue

    async def accepts_publishes(self) -> bool:
        """Return True if the connection is up and the broker reports no alarm.

        The method does not wait.
        """
        if not self.up.is_set():
            return False
        try:
            async with asyncio.timeout(0):
                await self._underlay().ready()
        except (TimeoutError, Unavailable):
            return False
        return True

    async def channel(self, *, confirms: bool) -> Channel:
        """Open a channel on this connection. The timeout is `RPC_TIMEOUT_SECONDS`."""
        async with asyncio.timeout(RPC_TIMEOUT_SECONDS):
            channel = await self._underlay().channel(
                publisher_confirms=confirms, on_return_raises=confirms
            )
        # The cast is needed because the abstract class does not declare all arguments of `Channel`.
        return cast("Channel", channel)

    async def wait_lost(self, seconds: float) -> None:
        """Wait until the connection that is open now is lost, but at most `seconds`."""
        if self.up.is_set():
            await asyncio.wait([self._underlay().closing], timeout=seconds)

    def supports_consumer_timeout(self, queue: Queue) -> bool:
        """Return True if consumers of this queue can set their own consumer timeout.

        The result depends on the broker's version and on the queue's type. Before the first
        connect, the result is False.
        """
        properties = properties_of(self._connection) if self._connection is not None else {}
        return supports_consumer_timeout(properties, queue.arguments.get("x-queue-type"))

    def broker_name_of(self, queue: str) -> str:
        """Return the name that a queue has at the broker.

        With the setting `topology=verify`, the broker generates the names of exclusive queues. If
        the broker has not generated a name, the method returns `queue`.
        """
        return self._broker_names.get(queue, queue)

    async def declare(self, topology: Topology) -> None:
        """Declare a topology.

        The method opens new channels. If a declaration fails, the broker closes its channel.
        """
        channels: list[Channel] = []

        async def open_channel() -> Channel:
            channels.append(await self.channel(confirms=False))
            return channels[-1]

        async with self._declaring:
            with map_errors("verifying" if self._verify else "declaring"):
                try:
                    if self._verify:
                        self._broker_names |= await declare_own(
                            open_channel, topology, self._broker_names, timeout=RPC_TIMEOUT_SECONDS
                        )
                    else:
                        await declare_again(open_channel, topology, timeout=RPC_TIMEOUT_SECONDS)
                finally:
                    for channel in channels:
                        await close_quietly(channel)


async def close_quietly(channel: Channel) -> None:
    """Close a channel if it is open. Log an error instead of raising it."""
    if channel.is_closed:
        return
    try:
        with map_errors("closing a channel"):
            await channel.close(timeout=CLOSE_TIMEOUT_SECONDS)
    except BusError as error:
        log.debug(
            "channel %s did not close cleanly: %s",
            channel.number,
            error,
            extra={"channel": channel.number, "why": str(error)},
        )
