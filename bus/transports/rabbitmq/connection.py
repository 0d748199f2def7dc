"""A connection to the broker. It reconnects without a limit of attempts.

It uses aio-pika's plain `Connection` and has its own logic to reconnect. aio-pika's robust
connection is not used.
"""

import asyncio
import logging
from collections.abc import Callable
from typing import cast

import aio_pika
import aiormq.abc
import aiormq.exceptions
from yarl import URL

from bus.errors import BusError, Unavailable
from bus.messaging.broker_addresses import BrokerUrl, describe_brokers, require_urls
from bus.messaging.supervision import run_forever
from bus.security.secret_files import PasswordFile
from bus.transports.rabbitmq.cluster import Cluster
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
from bus.transports.rabbitmq.open_connection import CLOSE_TIMEOUT_SECONDS, OpenConnection

__all__ = ["SupervisedConnection", "connection_url"]

log = logging.getLogger("bus.rabbitmq")

UNLIMITED_FRAME_BYTES = 512 * 1024 * 1024
"""Maximum bytes of a frame if the broker sets no limit (`frame_max = 0`).

This is the size of the largest message that RabbitMQ can be configured to accept.
"""


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
        self.connected_at: float | None = None
        """Time of the last connect, on the event loop's clock. None if the connection is down."""
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
            self.connected_at = asyncio.get_running_loop().time()
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
        self.connected_at = None
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
