"""A password that changes while connections are open: each is told, so that none ends with the token that it began with."""

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
from bus.security.secret_files import PasswordFile
from bus.settings import Settings
from bus.transports.rabbitmq.connection import connection_url
from bus.transports.rabbitmq.exceptions import EXPECTED_ERRORS, map_errors, to_bus_error
from bus.transports.rabbitmq.lenient_reader import LenientTransportFactory

__all__ = ["CredentialRefresher", "RefreshableConnection", "is_accepted"]

log = logging.getLogger("bus.rabbitmq")

POLL_INTERVAL_SECONDS = 2.0
"""Seconds between two looks at the file. Who renews a token does it minutes before its end, so this need not be shorter."""
RETRY_REFUSED_SECONDS = 30.0
"""Seconds until a refused password is tried again: the broker may learn of it later than we do, and counts failures."""
TRIAL_TIMEOUT_SECONDS = 5.0
"""Seconds for one trial, a handshake."""


class RefreshableConnection(Protocol):
    """A connection whose password can be replaced."""

    name: str
    current_password: SecretStr | None
    """The password that the broker was shown on it."""

    @property
    def is_up(self) -> bool:
        """Whether there is a broker to tell."""
        ...

    def use_password_on_reconnect(self, password: SecretStr) -> None:
        """What to connect with the next time."""
        ...

    async def update_secret(self, password: SecretStr) -> None:
        """Show the broker this one from now on; an error of the bus where it did not say yes."""
        ...


class CredentialRefresher:
    """Looks at the file, and tells the connections.

    RabbitMQ closes a connection on which it is told a secret that it refuses, and takes one there that has ended already. So each new
    one is tried first, by a connection of its own; one that is refused is told to nobody.
    """

    def __init__(
        self,
        file: PasswordFile,
        connections: Sequence[RefreshableConnection],
        *,
        trial: Callable[[SecretStr], Awaitable[bool]],
        timer: Callable[[], float] | None = None,
    ) -> None:
        """`trial` says whether the broker lets this password in, or raises what `translating` does; `timer`: seconds, else the loop's."""
        self._file = file
        self._connections = connections
        self._trial = trial
        self._timer = timer or _loop_time
        self._refused: SecretStr | None = None
        self._again = 0.0
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
        """For connections by these settings, of the service `name`; None without a file."""
        if file is None:
            return None
        url = connection_url(
            settings.address, heartbeat=settings.heartbeat, name=f"{name} trying a new password"
        )
        return cls(file, connections, trial=partial(is_accepted, url))

    def start(self) -> None:
        """Look every `LOOK` seconds from now on."""
        self._task = asyncio.create_task(
            run_forever(self._watch_file, expected=EXPECTED_ERRORS, on_error=_report),
            name="password renewal",
        )

    async def close(self) -> None:
        """Look no more."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def _watch_file(self) -> None:
        while True:
            await asyncio.sleep(POLL_INTERVAL_SECONDS)
            await self.check_file()

    async def check_file(self) -> None:
        """Look once, and tell every open connection that was shown another password than the file's."""
        password = self._file.read()
        for each in self._connections:
            each.use_password_on_reconnect(password)
        if self._pending(password) and await self._try_password(password):
            await asyncio.gather(
                *(self._update_connections(each, password) for each in self._pending(password))
            )

    def _pending(self, password: SecretStr) -> list[RefreshableConnection]:
        return [
            each for each in self._connections if each.is_up and each.current_password != password
        ]

    async def _try_password(self, password: SecretStr) -> bool:
        if password == self._refused and self._timer() < self._again:
            return False
        try:
            accepted = await self._trial(password)
        except BusError as error:
            self._warn("a new password could not be tried; trying again", "", password, error)
            return False
        if not accepted:
            if password != self._refused:
                log.warning(
                    "the broker refuses the new password; connections go on with the one before, until that ends",
                    extra={"file": str(self._file.path)},
                )
            self._again = self._timer() + RETRY_REFUSED_SECONDS
        self._refused = None if accepted else password
        return accepted

    async def _update_connections(
        self, connection: RefreshableConnection, password: SecretStr
    ) -> None:
        try:
            await connection.update_secret(password)
        except BusError as error:  # an alarm, in which the broker reads nothing, or the connection ended meanwhile
            self._warn(
                "the new password was not taken; trying again", connection.name, password, error
            )
        else:
            log.info("the password was renewed", extra={"link": connection.name})

    def _warn(self, what: str, link: str, password: SecretStr, error: BusError) -> None:
        """Once for each password and connection; for a trial `link` is empty."""
        if self._warned.get(link) != password:
            log.warning(what, extra={"link": link, "why": str(error)})
        self._warned[link] = password


async def is_accepted(url: str, password: SecretStr) -> bool:
    """Whether the broker lets this password in, by a handshake; an error of the bus where it does not say."""
    connection = aio_pika.Connection(URL(url).with_password(password.get_secret_value()))
    factory = LenientTransportFactory()
    connection.kwargs["transport_factory"] = factory
    try:
        with map_errors("trying a new password"):
            async with asyncio.timeout(TRIAL_TIMEOUT_SECONDS):
                return await _let_in(connection)
    finally:
        factory.abort()


async def _let_in(connection: aio_pika.Connection) -> bool:
    try:
        await connection.connect()
        await connection.close()
    except (AuthenticationError, ProbableAuthenticationError):
        return False
    except (ConnectionNotAllowed, ProtocolSyntaxError):
        return True  # the virtual host, or one connection more than this user may have: the password was right
    return True


def _report(error: BaseException) -> None:
    log.warning(
        "a look at the password failed; trying again",
        extra={"why": str(to_bus_error(error, "renewing"))},
    )


def _loop_time() -> float:
    return asyncio.get_running_loop().time()
