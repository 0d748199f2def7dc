"""The refresh of a password or OAuth 2 token on open connections.

Without a refresh, the broker closes a connection when the connection's token expires.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Protocol, Self

import aio_pika
from aiormq.exceptions import (
    AuthenticationError,
    ConnectionNotAllowed,
    ProbableAuthenticationError,
    ProtocolSyntaxError,
)
from pydantic import SecretStr
from yarl import URL

from bus.errors import BusError
from bus.messaging.supervision import run_forever
from bus.messaging.timers import loop_time
from bus.security.secret_files import PasswordFile
from bus.settings import Settings
from bus.transports.rabbitmq.connection import connection_url
from bus.transports.rabbitmq.exceptions import (
    EXPECTED_ERRORS,
    join_errors,
    map_errors,
    to_bus_error,
)
from bus.transports.rabbitmq.lenient_reader import LenientTransportFactory

__all__ = ["CredentialRefresher", "RefreshableConnection", "is_accepted"]

log = logging.getLogger("bus.rabbitmq")

POLL_INTERVAL_SECONDS = 2.0
"""Seconds between two checks of the file.

A shorter interval is not necessary, because tokens are renewed minutes before they expire.
"""
RETRY_REFUSED_SECONDS = 30.0
"""Seconds between two tests of a refused password.

The test is repeated because the broker can receive a new password later than this process. The
interval is long because the broker counts failed logins.
"""
TRIAL_TIMEOUT_SECONDS = 5.0
"""Timeout of one test of a password, in seconds. The test is an AMQP handshake."""


class RefreshableConnection(Protocol):
    """A connection with a password that can be replaced."""

    name: str
    current_password: SecretStr | None
    """The last password that was sent to the broker on this connection."""

    @property
    def is_up(self) -> bool:
        """True if the connection is up now."""
        ...

    def use_password_on_reconnect(self, password: SecretStr) -> None:
        """Set the password for the next attempt to connect."""
        ...

    async def update_secret(self, password: SecretStr) -> None:
        """Send a new password to the broker on the open connection.

        Raises:
            BusError: The broker did not accept the password.
        """
        ...


class CredentialRefresher:
    """A watcher of the password file. It sends a new password on the open connections.

    Each new password is first tested on a separate connection. Only an accepted password is sent on
    the open connections. There are two reasons for the test. If RabbitMQ refuses a password that
    is sent on an open connection, RabbitMQ closes this connection. If an expired token is sent on
    an open connection, RabbitMQ accepts the token.
    """

    def __init__(
        self,
        file: PasswordFile,
        connections: Sequence[RefreshableConnection],
        *,
        trial: Callable[[SecretStr], Awaitable[bool]],
        timer: Callable[[], float] | None = None,
    ) -> None:
        """Create a refresher that is not started.

        Args:
            file: The password file.
            connections: The connections that receive each new password.
            trial: Returns True if the broker accepts a password, and False if it refuses the
                password. If the test has no result, `trial` raises a `BusError`.
            timer: Returns a time in seconds. The default is the event loop's clock.
        """
        self._file = file
        self._connections = connections
        self._trial = trial
        self._timer = timer or loop_time
        self._refused: SecretStr | None = None
        self._retry_at = 0.0
        self._warned: dict[str, SecretStr] = {}
        self._task: asyncio.Task[None] | None = None

    @classmethod
    def by(
        cls,
        settings: Settings,
        file: PasswordFile | None,
        connections: Sequence[RefreshableConnection],
        *,
        name: str,
    ) -> Self | None:
        """Create the refresher of a service's connections.

        Args:
            settings: The settings of the connections.
            file: The password file, or None.
            connections: The connections that receive each new password.
            name: The service's name. The RabbitMQ UI shows it for the test connections.

        Returns:
            The refresher, or None if `file` is None.
        """
        if file is None:
            return None
        urls = [
            connection_url(url, heartbeat=settings.heartbeat, name=f"{name} trying a new password")
            for url in settings.addresses
        ]
        return cls(file, connections, trial=partial(is_accepted, urls))

    def start(self) -> None:
        """Start to check the file every `POLL_INTERVAL_SECONDS`."""
        self._task = asyncio.create_task(
            run_forever(self._watch_file, expected=EXPECTED_ERRORS, on_error=self._report),
            name="password renewal",
        )

    async def close(self) -> None:
        """Stop checking the file."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def _watch_file(self) -> None:
        while True:
            await asyncio.sleep(POLL_INTERVAL_SECONDS)
            await self.check_file()

    async def check_file(self) -> None:
        """Read the file once. If its password is new and accepted, update the open connections."""
        password = self._file.read()
        for connection in self._connections:
            connection.use_password_on_reconnect(password)
        if self._pending(password) and await self._try_password(password):
            await asyncio.gather(
                *(
                    self._update_connections(connection, password)
                    for connection in self._pending(password)
                )
            )

    def _pending(self, password: SecretStr) -> list[RefreshableConnection]:
        """Return the open connections that use a different password."""
        return [
            connection
            for connection in self._connections
            if connection.is_up and connection.current_password != password
        ]

    async def _try_password(self, password: SecretStr) -> bool:
        """Return True if the broker accepts the password. Otherwise, return False and log why."""
        if password == self._refused and self._timer() < self._retry_at:
            return False
        try:
            accepted = await self._trial(password)
        except BusError as error:
            self._warn("the new password could not be tested", "", password, error)
            return False
        if not accepted:
            if password != self._refused:
                log.warning(
                    "%s: the broker refuses the new password; "
                    "open connections keep the previous one until it expires",
                    self._file.path,
                    extra={"file": str(self._file.path)},
                )
            self._retry_at = self._timer() + RETRY_REFUSED_SECONDS
        self._refused = None if accepted else password
        return accepted

    async def _update_connections(
        self, connection: RefreshableConnection, password: SecretStr
    ) -> None:
        """Send the password on one connection. Log an error instead of raising it."""
        try:
            await connection.update_secret(password)
        except BusError as error:
            # The connection has just ended, or the broker does not read from it during an alarm.
            self._warn("the new password was not accepted", connection.name, password, error)
        else:
            log.info(
                "%s: the password was renewed", connection.name, extra={"link": connection.name}
            )

    def _warn(self, message: str, link: str, password: SecretStr, error: BusError) -> None:
        """Log a warning once for each password and connection.

        `link` is the connection's name. It is empty if the password could not be tested.
        """
        if self._warned.get(link) != password:
            log.warning(
                "%s: %s (%s); trying again",
                link or self._file.path,
                message,
                error,
                extra={"link": link, "why": str(error)},
            )
        self._warned[link] = password

    def _report(self, error: BaseException) -> None:
        why = str(to_bus_error(error, "renewing"))
        log.warning(
            "%s: the password file could not be checked (%s); trying again",
            self._file.path,
            why,
            extra={"file": str(self._file.path), "why": why},
        )


async def is_accepted(urls: Sequence[str], password: SecretStr) -> bool:
    """Return True if the broker accepts this password. The test is an AMQP handshake.

    Args:
        urls: The URL of each host. The first host that answers decides.
        password: The password to test.

    Raises:
        BusError: The test had no result. For example, no host answered.
    """
    errors: list[BusError] = []
    for url in urls:
        try:
            return await _is_accepted_at(url, password)
        except BusError as error:
            errors.append(error)
    raise join_errors(errors)


async def _is_accepted_at(url: str, password: SecretStr) -> bool:
    connection = aio_pika.Connection(URL(url).with_password(password.get_secret_value()))
    factory = LenientTransportFactory()
    connection.kwargs["transport_factory"] = factory
    try:
        with map_errors("trying a new password"):
            async with asyncio.timeout(TRIAL_TIMEOUT_SECONDS):
                return await _try_login(connection)
    finally:
        factory.abort()


async def _try_login(connection: aio_pika.Connection) -> bool:
    """Return True if the broker accepts the credentials, and False if it refuses them."""
    try:
        await connection.connect()
        await connection.close()
    except (AuthenticationError, ProbableAuthenticationError):
        return False
    except (ConnectionNotAllowed, ProtocolSyntaxError):
        # The broker refused the virtual host, or the user has too many connections. The broker
        # checks the virtual host and the connection limit only after it has accepted the password.
        return True
    return True
