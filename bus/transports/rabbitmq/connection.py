"""A connection to the broker. It reconnects without a limit of attempts.

It uses aio-pika's plain `Connection` and has its own logic to reconnect. aio-pika's robust
connection is not used.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import cast

import aio_pika
import aiormq.abc
import aiormq.exceptions
from aiormq.channel import Channel
from pydantic import SecretStr
from yarl import URL

from bus.errors import BusError, Unavailable
from bus.messaging.broker_addresses import BrokerUrl, describe_brokers, require_urls
from bus.messaging.supervision import run_forever
from bus.messaging.topology.model import Queue, Topology
from bus.security.secret_files import PasswordFile
from bus.transports.rabbitmq.cluster import Cluster
from bus.transports.rabbitmq.consumer_timeout import supports_consumer_timeout
from bus.transports.rabbitmq.declare import declare, declare_own
from bus.transports.rabbitmq.exceptions import (
    EXPECTED_ERRORS,
    REFUSALS,
    closing_reason,
    join_errors,
    map_errors,
    to_bus_error,
)
from bus.transports.rabbitmq.fastlane.protocol import FastLaneProtocol, FastLaneTransportFactory
from bus.transports.rabbitmq.handshake import CLUSTER, properties_of
from bus.transports.rabbitmq.lenient_reader import LenientTransportFactory
from bus.transports.rabbitmq.log_filter import redact_library_logs

__all__ = ["Channel", "OpenConnection", "SupervisedConnection", "connection_url"]

log = logging.getLogger("bus.rabbitmq")

RPC_TIMEOUT_SECONDS = 10.0
"""Timeout of one synchronous AMQP call, in seconds.

A call gets no answer, for example, while a quorum queue has no leader.
"""
CLOSE_TIMEOUT_SECONDS = 2.0
"""Seconds to wait for the broker's answer when a channel, consumer or connection is closed."""
UNLIMITED_FRAME_BYTES = 512 * 1024 * 1024
"""Maximum bytes of a frame if the broker sets no limit (`frame_max = 0`).

This is the size of the largest message that RabbitMQ can be configured to accept.
"""
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
                        await declare(await open_channel(), topology, timeout=RPC_TIMEOUT_SECONDS)
                finally:
                    for channel in channels:
                        await close_quietly(channel)


class SupervisedConnection(OpenConnection):
    """A connection that a supervised task opens, watches and reopens."""

    def __init__(  # noqa: PLR0913 - each parameter is a property of the connection
        self,
        url: str,
        *,
        name: str,
        heartbeat: int,
        attempt_timeout: float,
        fastlane: bool,
        verify: bool = False,
        password: PasswordFile | None = None,
        on_lost: Callable[[], None] | None = None,
    ) -> None:
        """Create a connection that is not open; `start` opens it.

        Args:
            url: The broker's URL, or several URLs. Each attempt to connect takes the next host.
            name: The name in the RabbitMQ UI and in log messages.
            heartbeat: The heartbeat interval in seconds.
            attempt_timeout: Timeout of one attempt to connect, in seconds.
            fastlane: If True, the fast lane handles the frequent frames.
            verify: If True, declare only the exclusive queues of this connection. Do not
                declare exchanges and other queues, but check that they exist.
            password: The password file. Each attempt to connect reads the file. The password in
                the file replaces the password in each URL.
            on_lost: Called when an open connection is lost or closed.
        """
        redact_library_logs()
        super().__init__(name, require_urls(url), verify=verify)
        self._cluster = Cluster.of(self._hosts)
        self.is_refused = False
        """True while the connection is down, and a host was refused because of its cluster."""
        self._attempts = 0
        self._errors: dict[BrokerUrl, BusError] = {}
        """The last error of each host since the last connection."""
        self._attempt_timeout = attempt_timeout
        self._heartbeat = heartbeat
        self._fastlane = fastlane
        self._password = password
        self.lane: FastLaneProtocol | None = None
        """The connection's fast lane, or None if the fast lane is off."""
        self._on_lost = on_lost
        self._task: asyncio.Task[None] | None = None
        self._refused: asyncio.Future[None] | None = None
        self._closing = False

    async def start(self, *, timeout: float) -> None:
        """Connect, and keep the connection up until `close` is called.

        Args:
            timeout: Seconds to wait for the first connection, for each host.

        Raises:
            Unauthenticated: Every host refuses the credentials. `start` raises this error before
                the timeout.
            ConfigurationError: Every host refuses the virtual host, or the password file is not
                valid. `start` raises this error before the timeout.
            Unavailable: The connection is not up after `timeout` seconds for each host.
        """
        self._refused = asyncio.get_running_loop().create_future()
        self._task = asyncio.create_task(
            run_forever(self._step, expected=EXPECTED_ERRORS, on_error=self._report),
            name=f"link {self.name}",
        )
        up = asyncio.create_task(self.up.wait())
        try:
            await asyncio.wait(
                (up, self._refused),
                timeout=timeout * len(self._hosts),
                return_when=asyncio.FIRST_COMPLETED,
            )
            if self._refused.done():
                self._refused.result()
            if not self.up.is_set():
                raise Unavailable(
                    f"the broker at {describe_brokers(self._hosts)} cannot be reached"
                    f" ({self._reasons()})."
                    " Check that it is running, and that BUS_URL is correct."
                )
        finally:
            up.cancel()
            self._refused.cancel()

    def _reasons(self) -> str:
        """Return the reason of each host. The last attempt can still wait for its host."""
        if len(self._hosts) == 1 and not self._errors:
            return "no answer"
        known = {host: str(error) for host, error in self._errors.items()}
        for number, host in enumerate(self._hosts):
            reason = "no answer" if number < self._attempts else "not tried in this time"
            known.setdefault(host, f"connecting to {describe_brokers([host])}: {reason}")
        return "; ".join(dict.fromkeys(known[host] for host in self._hosts))

    async def _step(self) -> None:
        connection = aio_pika.Connection(self._next_url())
        factory = FastLaneTransportFactory() if self._fastlane else LenientTransportFactory()
        connection.kwargs["transport_factory"] = factory
        try:
            async with asyncio.timeout(self._attempt_timeout):
                await connection.connect()
            self._join_cluster(properties_of(connection).get(CLUSTER))
            self._connection = connection
            if isinstance(factory, FastLaneTransportFactory):
                self.lane = self._join(factory)
            self.last_error = None
            self._errors.clear()
            self.up.set()
            log.info(
                "%s: connected to %s",
                self.name,
                self._place(),
                extra={"link": self.name, "broker": self._place()},
            )
            await self._watch()
        finally:
            self._cluster.leave(self)
            self._mark_down()
            try:
                await _close_connection(connection)
            finally:
                factory.abort()

    def _next_url(self) -> URL:
        """Return the URL for the next attempt to connect. Each attempt takes the next host.

        After a lost connection the next host is tried first. The lost host may be shut down or
        hang, and would only delay the service.
        """
        self._host = self._hosts[self._attempts % len(self._hosts)]
        self._attempts += 1
        host = self._host
        if self._password is not None:
            self.current_password = self._password.read()
            host = host.with_password(self.current_password.get_secret_value())
        return URL(connection_url(host.text, heartbeat=self._heartbeat, name=self.name))

    def _join_cluster(self, name: object) -> None:
        """Join the cluster that the host has reported.

        Raises:
            ConfigurationError: The host belongs to another cluster.
        """
        self.is_refused = True
        self._cluster.join(self, self._host.place, name)
        self.is_refused = False

    def _join(self, factory: FastLaneTransportFactory) -> FastLaneProtocol | None:
        """Set the fast lane's maximum frame size and feed interval, and return the fast lane."""
        lane = factory.lane
        if (
            lane is not None
            and self._connection is not None
            and self._connection.transport is not None
        ):
            tune = cast("aiormq.Connection", self._connection.transport.connection).connection_tune
            lane.frame_max = tune.frame_max or UNLIMITED_FRAME_BYTES
            lane.feed_interval = min(1.0, self._heartbeat / 2)
        return lane

    async def _watch(self) -> None:
        """Wait until the connection ends.

        With the fast lane, abort the connection if no bytes arrive for two heartbeat intervals.
        aiormq alone would wait for at least three heartbeat intervals.
        """
        closing = self._underlay().closing
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.wait([closing], timeout=self._heartbeat / 2)
            if closing.done():
                return
            if self.lane is not None and loop.time() - self.lane.heard > 2 * self._heartbeat:
                log.warning(
                    "%s: nothing received from %s for two heartbeats; closing the connection",
                    self.name,
                    self._place(),
                    extra={"link": self.name, "broker": self._place()},
                )
                self.lane.transport.abort()

    def _mark_down(self) -> None:
        """Mark the connection as down, and call `on_lost`. Do nothing if it was down."""
        if not self.up.is_set():
            return
        self.up.clear()
        if not self._closing:
            why = self._reason_of_loss()
            log.warning(
                "%s: connection to %s lost (%s); connecting again",
                self.name,
                self._place(),
                why or "no reason known",
                extra={"link": self.name, "broker": self._place(), "why": why},
            )
        if self._on_lost is not None:
            self._on_lost()

    def _reason_of_loss(self) -> str | None:
        """Return the error of the fast lane, or the reason that aiormq has, or None."""
        if self.lane is not None and self.lane.last_error is not None:
            return self.lane.last_error
        if self._connection is None or self._connection.transport is None:
            return None
        return closing_reason(self._connection.transport.connection.closing)

    def _report(self, error: BaseException) -> None:
        """Log a failed attempt to connect. Make `start` fail if another attempt cannot succeed."""
        bus_error = to_bus_error(error, f"connecting to {self._place()}")
        reason = str(bus_error)
        if reason != str(self._errors.get(self._host)):
            log.warning(
                "%s: cannot connect (%s); trying again",
                self.name,
                reason,
                extra={"link": self.name, "broker": self._place(), "why": reason},
            )
        self.last_error = reason
        self._errors[self._host] = bus_error
        if (
            len(self._errors) == len(set(self._hosts))
            and all(isinstance(each, REFUSALS) for each in self._errors.values())
            and self._refused is not None
            and not self._refused.done()
        ):
            self._refused.set_exception(join_errors([*self._errors.values()]))

    async def close(self) -> None:
        """Close the connection. After that, it does not reconnect."""
        self._closing = True
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task], timeout=2 * CLOSE_TIMEOUT_SECONDS)


def connection_url(url: str, *, heartbeat: int, name: str) -> str:
    """Add the heartbeat (in seconds) and the connection's name to the URL, and return the URL."""
    return str(URL(url).update_query(heartbeat=heartbeat, name=name))


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


async def _close_connection(connection: aio_pika.Connection) -> None:
    """Close a connection in any state. Log an error instead of raising it."""
    try:
        with map_errors("closing a connection"):
            async with asyncio.timeout(CLOSE_TIMEOUT_SECONDS):
                # Without this argument, aiormq ends pending calls with a CancelledError.
                await connection.close(aiormq.exceptions.ConnectionClosed(0, "closed"))
    except BusError as error:
        log.debug(
            "the connection to %s did not close cleanly: %s",
            connection.url.host,
            error,
            extra={"broker": connection.url.host, "why": str(error)},
        )
