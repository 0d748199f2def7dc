"""A FastStream broker's connection: aio-pika's robust one, which connects again by itself. Everything above it is recovered by us."""

import asyncio
import logging
from collections.abc import Callable

from faststream.rabbit import RabbitBroker
from pydantic import SecretStr
from typing_extensions import override

from bus.errors import (
    BusError,
    ConfigurationError,
    FailedPrecondition,
    PermissionDenied,
    Unauthenticated,
    Unavailable,
)
from bus.messaging.backoff import backoff
from bus.messaging.supervision import run_forever
from bus.transports.rabbitmq.connection import CLOSE_TIMEOUT_SECONDS, OpenConnection
from bus.transports.rabbitmq.exceptions import EXPECTED_ERRORS, map_errors, to_bus_error
from bus.transports.rabbitmq.lenient_reader import LenientTransportFactory
from bus.transports.rabbitmq.log_filter import redact_library_logs

__all__ = ["RobustConnection"]

log = logging.getLogger("bus.faststream")

EXTRA_CONNECT_SECONDS = 1.0
"""Seconds that an attempt to connect may last beyond the start's time: one that is cancelled goes on by itself, for ever."""
REFUSALS = (Unauthenticated, ConfigurationError, PermissionDenied, FailedPrecondition)
"""What trying again cannot help while the bus starts."""


class RobustConnection(OpenConnection):
    """The broker's connection, seen from its ups and downs. Whoever connects it closes it."""

    def __init__(
        self, broker: RabbitBroker, *, name: str, on_lost: Callable[[], None], verify: bool = False
    ) -> None:
        redact_library_logs()
        super().__init__(name, str(broker.specification.url[0]), verify=verify)
        self.broker = broker
        self._on_lost = on_lost
        self._ours = False
        self._task: asyncio.Task[None] | None = None

    async def start(self, *, timeout: float) -> None:
        """Connect, and from now on say whether it is up; raises what `connect` raises."""
        self._ours = not self.broker.running  # an application's is started by it, and stopped by it
        await self.connect(timeout=timeout)
        self._task = asyncio.create_task(
            run_forever(self._step, expected=EXPECTED_ERRORS, on_error=self._report),
            name=f"link {self.name}",
        )
        await self.up.wait()

    async def connect(self, *, timeout: float) -> None:
        """Connect. `Unauthenticated` or `ConfigurationError` at once, `Unavailable` after `timeout` seconds."""
        loop = asyncio.get_running_loop()
        ends, failures = loop.time() + timeout, 0
        while self._connection is None:
            try:
                await self._connect(ends + EXTRA_CONNECT_SECONDS)
            except REFUSALS:
                raise
            except BusError as error:
                failures += 1
                wait = backoff(failures)
                if loop.time() + wait > ends:
                    raise Unavailable(
                        f"no broker at {self._place()} ({error}); is it running, and BUS_URL right?"
                    ) from None
                await asyncio.sleep(wait)

    async def _connect(self, ends: float) -> None:
        with map_errors(f"connecting to {self._place()}"):
            async with asyncio.timeout_at(ends):
                connection = await self.broker.connect()
        if connection is None:
            raise FailedPrecondition(
                "FastStream's test broker connects to nothing; test a router with bus.testing.MemoryBuses"
            )
        # From the next connection on. On this first one a message that cannot be read costs the connection, once.
        connection.kwargs["transport_factory"] = LenientTransportFactory()
        self.current_password = SecretStr(connection.url.password or "")
        self._connection = connection

    @override
    def use_password_on_reconnect(self, password: SecretStr) -> None:
        """aio-pika connects again by itself, and asks its connection for the address."""
        if self._connection is not None:
            self._connection.url = self._connection.url.with_password(password.get_secret_value())

    async def _step(self) -> None:
        """One life of the connection below."""
        connection = self._connection
        if connection is None:
            raise Unavailable("not connected")
        await connection.connected.wait()
        transport = connection.transport
        if transport is None or transport.connection.is_closed:
            raise Unavailable(
                f"connecting to {self._place()}: it was closed"
            )  # and that has not got around yet
        self.last_error = None
        self.up.set()
        log.info("connected", extra={"link": self.name, "broker": self._place()})
        try:
            await asyncio.wait([transport.connection.closing])
        finally:
            self.up.clear()
            self.last_error = "the connection was lost; FastStream's connection tries again"
            self._on_lost()
        log.warning("connection lost", extra={"link": self.name})

    def _report(self, error: BaseException) -> None:
        self.last_error = str(to_bus_error(error, f"connecting to {self._place()}"))

    async def close(self) -> None:
        """Watch no more; and where we connected, close."""
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
            log.debug("a connection did not close cleanly", extra={"why": str(error)})
