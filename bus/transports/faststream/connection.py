"""The connection of a FastStream broker.

FastStream uses aio-pika's robust connection, which reconnects by itself. After a reconnect, the bus
restores its own channels, consumers and topology.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping
from functools import partial

from faststream.rabbit import RabbitBroker
from pydantic import SecretStr
from typing_extensions import override

from bus.errors import BusError, FailedPrecondition, Unavailable
from bus.messaging.backoff import backoff
from bus.messaging.broker_addresses import BrokerUrl, describe_brokers
from bus.messaging.supervision import run_forever
from bus.transports.rabbitmq.exceptions import (
    EXPECTED_ERRORS,
    REFUSALS,
    join_errors,
    map_errors,
    to_bus_error,
)
from bus.transports.rabbitmq.hosts_connection import HostRotation, HostsConnection
from bus.transports.rabbitmq.lenient_reader import LenientTransportFactory
from bus.transports.rabbitmq.log_filter import redact_library_logs
from bus.transports.rabbitmq.open_connection import CLOSE_TIMEOUT_SECONDS, OpenConnection

__all__ = ["RobustConnection", "rotate_hosts", "rotation_of"]

log = logging.getLogger("bus.faststream")

APPLICATION = "the application's broker"
"""Text for the broker of a FastStream application.

FastStream reads the application's URL less strictly than the bus reads `BUS_URL`. If the password
has a character that is not percent-encoded, a part of it could be the host or the port.
"""
UNKNOWN_HOST = BrokerUrl(scheme="amqp", host=APPLICATION)
EXTRA_CONNECT_SECONDS = 1.0
"""Seconds that the last attempt to connect has to finish after the timeout of `start`.

After these seconds, the bus cancels the attempt. It does not cancel earlier, because aio-pika
continues a cancelled attempt in the background, without a time limit.
"""


class RobustConnection(OpenConnection):
    """The connection of a FastStream broker. The event `up` is set while the connection is open.

    `close` stops the broker only if `start` started the broker.
    """

    def __init__(
        self, broker: RabbitBroker, *, name: str, on_lost: Callable[[], None], verify: bool = False
    ) -> None:
        redact_library_logs()
        self._rotation = rotation_of(broker)
        hosts = self._rotation.hosts if self._rotation else (UNKNOWN_HOST,)
        super().__init__(name, hosts, verify=verify)
        self.broker = broker
        self._on_lost = on_lost
        self._ours = False
        self._task: asyncio.Task[None] | None = None

    @override
    def _place(self) -> str:
        if self._rotation is None:
            return APPLICATION
        self._host = self._rotation.current
        return super()._place()

    async def start(self, *, timeout: float) -> None:
        """Connect to the broker. Watch the connection until `close` is called.

        For the errors see `connect`.
        """
        # If the broker is running already, the application started it and will stop it.
        self._ours = not self.broker.running
        await self.connect(timeout=timeout)
        self._task = asyncio.create_task(
            run_forever(self._step, expected=EXPECTED_ERRORS, on_error=self._report),
            name=f"link {self.name}",
        )
        await self.up.wait()

    async def connect(self, *, timeout: float) -> None:
        """Connect to the broker. Retry until each host refuses access or the timeout passes.

        Args:
            timeout: Seconds for each host, after which no new attempt starts.

        Raises:
            Unauthenticated: Every host refused the credentials.
            ConfigurationError: Every host refused the virtual host.
            PermissionDenied: Every host refused access.
            FailedPrecondition: FastStream's test broker is in use.
            Unavailable: No attempt succeeded in time.
        """
        loop = asyncio.get_running_loop()
        ends, failures = loop.time() + timeout * len(self._hosts), 0
        errors: dict[str, BusError] = {}
        while self._connection is None:
            place = self._place()
            try:
                await self._connect(ends + EXTRA_CONNECT_SECONDS)
            except FailedPrecondition:
                raise
            except BusError as error:
                errors[place] = error
                if len(errors) == len({host.place for host in self._hosts}) and all(
                    isinstance(each, REFUSALS) for each in errors.values()
                ):
                    raise join_errors([*errors.values()]) from None
                failures += 1
                wait = backoff(failures)
                if loop.time() + wait > ends:
                    raise self._unreachable(self._reasons(errors)) from None
                await asyncio.sleep(wait)

    def _reasons(self, errors: Mapping[str, BusError]) -> str:
        """Return the reason of each host. `errors` has the last error of each place."""
        reasons = {place: str(error) for place, error in errors.items()}
        if self._rotation is not None:
            for place in (describe_brokers([host]) for host in self._hosts):
                reasons.setdefault(place, f"connecting to {place}: not tried in this time")
        return "; ".join(dict.fromkeys(reasons.values()))

    def _unreachable(self, reasons: str) -> Unavailable:
        if self._rotation is None:
            return Unavailable(
                f"{APPLICATION} cannot be reached ({reasons}). Check that it is running, and that "
                "the URL of the RabbitBroker is correct."
            )
        return Unavailable(
            f"the broker at {describe_brokers(self._hosts)} cannot be reached ({reasons}). "
            "Check that it is running, and that BUS_URL is correct."
        )

    async def _connect(self, ends: float) -> None:
        with map_errors(f"connecting to {self._place()}"):
            async with asyncio.timeout_at(ends):
                connection = await self.broker.connect()
        if connection is None:
            raise FailedPrecondition(
                "FastStream's test broker has no connection. "
                "Test the router with `bus.testing.MemoryBuses`."
            )
        # aio-pika uses `transport_factory` only when it reconnects. On the first connection, an
        # unreadable message can still close the connection.
        connection.kwargs["transport_factory"] = LenientTransportFactory()
        self.current_password = SecretStr(connection.url.password or "")
        self._connection = connection

    @override
    def use_password_on_reconnect(self, password: SecretStr) -> None:
        """Set the password in the URL that aio-pika uses to reconnect."""
        if self._rotation is not None:
            self._rotation.password = password.get_secret_value()
        if self._connection is not None:
            self._connection.url = self._connection.url.with_password(password.get_secret_value())

    async def _step(self) -> None:
        """Wait until the underlying connection opens. After that, wait until it is lost."""
        connection = self._connection
        if connection is None:
            raise Unavailable("the FastStream broker is not connected")
        await connection.connected.wait()
        transport = connection.transport
        if transport is None or transport.connection.is_closed:
            # The connection was lost, but aio-pika has not cleared its event `connected` yet.
            raise Unavailable(f"the connection to {self._place()} was closed")
        place = self._place()
        facts = {"link": self.name, "broker": place}
        self.last_error = None
        self.up.set()
        log.info("%s: connected to %s", self.name, place, extra=facts)
        try:
            await asyncio.wait([transport.connection.closing])
        finally:
            self.up.clear()
            self.last_error = "the connection was lost; FastStream's broker reconnects"
            self._on_lost()
        log.warning(
            "%s: connection to %s lost; FastStream's broker reconnects",
            self.name,
            place,
            extra=facts,
        )

    def _report(self, error: BaseException) -> None:
        self.last_error = str(to_bus_error(error, f"connecting to {self._place()}"))

    async def close(self) -> None:
        """Stop watching the connection. Stop the broker if `start` started the broker."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task], timeout=2 * CLOSE_TIMEOUT_SECONDS)
        if not self._ours:
            return
        try:
            with map_errors("closing the connection"):
                async with asyncio.timeout(2 * CLOSE_TIMEOUT_SECONDS):
                    await self.broker.stop()
        except BusError as error:
            log.debug(
                "%s: the connection did not close cleanly: %s",
                self.name,
                error,
                extra={"link": self.name, "why": str(error)},
            )


def rotate_hosts(broker: RabbitBroker, rotation: HostRotation) -> None:
    """Let a FastStream broker take the next host of the rotation for each attempt to connect."""
    # FastStream passes these arguments to aio-pika, but its constructor has no parameter for them.
    broker._connection_kwargs["connection_class"] = partial(  # noqa: SLF001
        HostsConnection, rotation=rotation
    )


def rotation_of(broker: RabbitBroker) -> HostRotation | None:
    """Return the rotation that `rotate_hosts` gave to a broker, or None."""
    connection_class = broker._connection_kwargs.get("connection_class")  # noqa: SLF001
    if not isinstance(connection_class, partial):
        return None
    rotation = connection_class.keywords.get("rotation")
    return rotation if isinstance(rotation, HostRotation) else None
