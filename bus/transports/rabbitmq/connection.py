"""One connection to the broker, connected again for ever: aio-pika's plain `Connection`, recovery ours."""

import asyncio
import logging
from collections.abc import Callable
from typing import cast

import aio_pika
import aiormq.abc
import aiormq.exceptions
from aiormq.channel import Channel
from pydantic import SecretStr
from yarl import URL

from bus.errors import BusError, ConfigurationError, PermissionDenied, Unauthenticated, Unavailable
from bus.messaging.supervision import run_forever
from bus.messaging.topology.model import Queue, Topology
from bus.security.secret_files import PasswordFile
from bus.transports.rabbitmq.consumer_timeout import supports_consumer_timeout
from bus.transports.rabbitmq.declare import declare, declare_own
from bus.transports.rabbitmq.exceptions import EXPECTED_ERRORS, map_errors, to_bus_error
from bus.transports.rabbitmq.fastlane.protocol import FastLaneProtocol, FastLaneTransportFactory
from bus.transports.rabbitmq.handshake import properties_of
from bus.transports.rabbitmq.lenient_reader import LenientTransportFactory
from bus.transports.rabbitmq.log_filter import redact_library_logs

__all__ = ["Channel", "OpenConnection", "SupervisedConnection", "connection_url"]

log = logging.getLogger("bus.rabbitmq")

RPC_TIMEOUT_SECONDS = 10.0
"""Seconds for one synchronous AMQP call. A quorum queue that lost its leader leaves such a call without an answer."""
CLOSE_TIMEOUT_SECONDS = 2.0
"""Seconds; a peer that does not say goodbye by then is left."""
UNLIMITED_FRAME_BYTES = 512 * 1024 * 1024
"""Bytes of a frame where the broker sets no limit (`frame_max = 0`): of the largest message that RabbitMQ can be set to take."""
BLOCKED_POLL_SECONDS = 1.0
"""Seconds after which who waits for an unblocking looks whether it is still the same connection: one that is lost never unblocks."""
REFUSALS = (Unauthenticated, ConfigurationError, PermissionDenied)
"""What trying again cannot help while the bus starts."""


class OpenConnection:
    """A connection that is up, or will be again: what channels, publishers and consumers need of one."""

    def __init__(self, name: str, url: str, *, verify: bool = False) -> None:
        """`name` is for logs; of `url` nothing but host, port and virtual host is ever shown. `verify`: make only what is its own."""
        self.name = name
        self._verify = verify
        self.up = asyncio.Event()
        self.current_password: SecretStr | None = None
        """The password that the broker was shown, where that comes from a file."""
        self.last_error: str | None = None
        self._url = URL(url)
        self._connection: aio_pika.Connection | None = None
        self._declaring = asyncio.Lock()
        self._given: dict[str, str] = {}

    def _place(self) -> str:
        """Host, port and virtual host; never the password."""
        vhost = self._url.path.lstrip("/")
        return (
            f"{self._url.host}:{self._url.port or (5671 if self._url.scheme == 'amqps' else 5672)}"
            + (f" (virtual host {vhost})" if vhost else "")
        )

    def _underlay(self) -> aiormq.abc.AbstractConnection:
        if self._connection is None or self._connection.transport is None or not self.up.is_set():
            raise Unavailable(f"not connected to {self._place()}")
        return self._connection.transport.connection

    @property
    def is_up(self) -> bool:
        """Whether it is up now."""
        return self.up.is_set()

    def use_password_on_reconnect(self, password: SecretStr) -> None:
        """A new password for the next connection, for who does not read it itself."""

    async def update_secret(self, password: SecretStr) -> None:
        """Tell the broker a new password on the open connection (`connection.update-secret`), at most for `RPC_TIMEOUT` seconds."""
        with map_errors("renewing the password"):
            await self._underlay().update_secret(
                password.get_secret_value(), reason="renewed", timeout=RPC_TIMEOUT_SECONDS
            )
        self.current_password = password

    async def wait_unblocked(self) -> None:
        """Returns when the broker takes publishes: connected, and no alarm that it has told us of. Callers set the limit."""
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
        """Whether it is up and no alarm that the broker has told us of holds publishes up; does not wait."""
        if not self.up.is_set():
            return False
        try:
            async with asyncio.timeout(0):
                await self._underlay().ready()
        except (TimeoutError, Unavailable):
            return False
        return True

    async def channel(self, *, confirms: bool) -> Channel:
        """A channel of this connection, at most after `RPC_TIMEOUT` seconds."""
        async with asyncio.timeout(RPC_TIMEOUT_SECONDS):
            channel = await self._underlay().channel(
                publisher_confirms=confirms, on_return_raises=confirms
            )
        return cast(
            "Channel", channel
        )  # the abstract class lacks arguments that the only real one has

    def supports_consumer_timeout(self, queue: Queue) -> bool:
        """Whether the broker lets consumers of this queue say for how long they may hold a delivery; it was connected to before."""
        properties = properties_of(self._connection) if self._connection is not None else {}
        return supports_consumer_timeout(properties, queue.arguments.get("x-queue-type"))

    def broker_name_of(self, queue: str) -> str:
        """What the broker calls a queue: another name than ours for a connection's own, where others manage the broker."""
        return self._given.get(queue, queue)

    async def declare(self, topology: Topology) -> None:
        """Declare on channels of its own: a refusal or a time-out closes the channel it happens on."""
        opened: list[Channel] = []

        async def fresh() -> Channel:
            opened.append(await self.channel(confirms=False))
            return opened[-1]

        async with self._declaring:
            with map_errors("verifying" if self._verify else "declaring"):
                try:
                    if self._verify:
                        self._given |= await declare_own(
                            fresh, topology, self._given, timeout=RPC_TIMEOUT_SECONDS
                        )
                    else:
                        await declare(await fresh(), topology, timeout=RPC_TIMEOUT_SECONDS)
                finally:
                    for channel in opened:
                        await close_quietly(channel)


class SupervisedConnection(OpenConnection):
    """A supervised connection."""

    def __init__(  # noqa: PLR0913 - what a connection is
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
        """`heartbeat` and `attempt_timeout` in seconds; `name` is shown in the RabbitMQ UI; `verify`: make only what is its own.

        `password` is read at each attempt to connect, and stands for the one in `url`.
        """
        redact_library_logs()
        super().__init__(name, connection_url(url, heartbeat=heartbeat, name=name), verify=verify)
        self._attempt_timeout = attempt_timeout
        self._heartbeat = heartbeat
        self._fastlane = fastlane
        self._password = password
        self.lane: FastLaneProtocol | None = None
        """The connection's fast lane; None without one."""
        self._on_lost = on_lost
        self._task: asyncio.Task[None] | None = None
        self._refused: asyncio.Future[None] | None = None
        self._closing = False

    async def start(self, *, timeout: float) -> None:
        """Connect. `Unauthenticated` or `ConfigurationError` at once, `Unavailable` after `timeout` seconds."""
        self._refused = asyncio.get_running_loop().create_future()
        self._task = asyncio.create_task(
            run_forever(self._step, expected=EXPECTED_ERRORS, on_error=self._report),
            name=f"link {self.name}",
        )
        up = asyncio.create_task(self.up.wait())
        try:
            await asyncio.wait(
                (up, self._refused), timeout=timeout, return_when=asyncio.FIRST_COMPLETED
            )
            if self._refused.done():
                self._refused.result()
            if not self.up.is_set():
                raise Unavailable(
                    f"no broker at {self._place()} ({self.last_error or 'no answer'}); is it running, and BUS_URL right?"
                )
        finally:
            up.cancel()
            self._refused.cancel()

    async def _step(self) -> None:
        if self._password is not None:
            self.current_password = self._password.read()
            self._url = self._url.with_password(self.current_password.get_secret_value())
        connection = aio_pika.Connection(self._url)
        factory = FastLaneTransportFactory() if self._fastlane else LenientTransportFactory()
        connection.kwargs["transport_factory"] = factory
        try:
            async with asyncio.timeout(self._attempt_timeout):
                await connection.connect()
            self._connection = connection
            if isinstance(factory, FastLaneTransportFactory):
                self.lane = self._join(factory)
            self.last_error = None
            self.up.set()
            log.info("connected", extra={"link": self.name, "broker": self._place()})
            await self._watch()
        finally:
            self._down()
            try:
                await _quietly(connection)
            finally:
                factory.abort()

    def _join(self, factory: FastLaneTransportFactory) -> FastLaneProtocol | None:
        """The new connection's lane, which from now on knows what was agreed with the broker."""
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
        """Until the connection ends; one that nothing has come over for two heartbeats is ended here: aiormq waits for three and more."""
        closing = self._underlay().closing
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.wait([closing], timeout=self._heartbeat / 2)
            if closing.done():
                return
            if self.lane is not None and loop.time() - self.lane.heard > 2 * self._heartbeat:
                log.warning(
                    "nothing has come for two heartbeats; ending the connection",
                    extra={"link": self.name},
                )
                self.lane.transport.abort()

    def _down(self) -> None:
        if not self.up.is_set():
            return
        self.up.clear()
        if not self._closing:
            why = self.lane.last_error if self.lane is not None else None
            log.warning("connection lost", extra={"link": self.name, "why": why})
        if self._on_lost is not None:
            self._on_lost()

    def _report(self, error: BaseException) -> None:
        known = to_bus_error(error, f"connecting to {self._place()}")
        if self.last_error != str(known):
            log.warning("no connection; trying again", extra={"link": self.name, "why": str(known)})
        self.last_error = str(known)
        if isinstance(known, REFUSALS) and self._refused is not None and not self._refused.done():
            self._refused.set_exception(known)

    async def close(self) -> None:
        """Close, and connect no more."""
        self._closing = True
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task], timeout=2 * CLOSE_TIMEOUT_SECONDS)


def connection_url(url: str, *, heartbeat: int, name: str) -> str:
    """The address with what goes with it: the heartbeat in seconds, and the name that the RabbitMQ UI shows."""
    return str(URL(url).update_query(heartbeat=heartbeat, name=name))


async def close_quietly(channel: Channel) -> None:
    """Close a channel that is of no use any more, whatever state it is in."""
    if channel.is_closed:
        return
    try:
        with map_errors("closing a channel"):
            await channel.close(timeout=CLOSE_TIMEOUT_SECONDS)
    except BusError as error:
        log.debug("a channel did not close cleanly", extra={"why": str(error)})


async def _quietly(connection: aio_pika.Connection) -> None:
    try:
        with map_errors("closing a connection"):
            async with asyncio.timeout(CLOSE_TIMEOUT_SECONDS):
                # Without an exception of its own aiormq fails what waits with a CancelledError.
                await connection.close(aiormq.exceptions.ConnectionClosed(0, "closed"))
    except BusError as error:
        log.debug("a connection did not close cleanly", extra={"why": str(error)})
