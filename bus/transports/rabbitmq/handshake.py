"""A probe that connects to a broker, checks that the broker answers, and reads its version."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

import aio_pika
from aiormq.exceptions import (
    AMQPError,
    AuthenticationError,
    ProbableAuthenticationError,
    ProtocolSyntaxError,
)

from bus.errors import ConfigurationError, Unauthenticated, Unavailable

__all__ = ["BrokerInfo", "connected", "probe", "vhost_of"]

TIMEOUT_SECONDS = 5.0
"""Timeout of a probe, in seconds. A handshake on a local network takes 10 ms."""


@dataclass(frozen=True, kw_only=True)
class BrokerInfo:
    """The properties that a broker reports about itself."""

    product: str
    version: str
    cluster: str
    platform: str


async def probe(url: str, timeout: float = TIMEOUT_SECONDS) -> BrokerInfo:
    """Connect to a broker, close the connection, and return the broker's properties.

    Args:
        url: The broker's URL.
        timeout: Timeout of the connect, in seconds.

    Raises:
        ConfigurationError: The URL is not valid.
        Unauthenticated: The broker refuses the user, the password or the virtual host.
        Unavailable: No server answers at this address, or the server does not use AMQP 0-9-1.
    """
    async with connected(url, timeout) as connection:
        return describe(properties_of(connection))


@asynccontextmanager
async def connected(url: str, timeout: float) -> AsyncIterator[aio_pika.abc.AbstractConnection]:
    """Open a connection, and close it at the end of the `with` block.

    Args:
        url: The broker's URL.
        timeout: Timeout of the connect, in seconds. The close has the same timeout.

    Yields:
        The open connection.

    Raises:
        BusError: One of the errors that `probe` raises. `Unavailable` is also raised if the
            connection is lost inside the `with` block.
    """
    broker_address = address(url)
    try:
        connection = await _open(url, timeout)
        try:
            yield connection
        finally:
            async with asyncio.timeout(timeout):
                await connection.close()
    except (AuthenticationError, ProbableAuthenticationError) as error:
        raise Unauthenticated(
            f"the broker at {broker_address} refuses the user or the password."
            " Check them in BUS_URL, or in BUS_PASSWORD_FILE."
        ) from error
    except ProtocolSyntaxError as error:
        # If RabbitMQ refuses the virtual host, it closes the connection. aiormq reports the close
        # as an unexpected frame.
        raise Unauthenticated(
            f"the broker at {broker_address} refuses the virtual host {vhost_of(url)!r}."
            " Create it, or grant this user permissions for it."
        ) from error
    except TimeoutError as error:
        raise Unavailable(
            f"the broker at {broker_address} did not answer within {timeout:g} s."
            " Check that RabbitMQ listens there, and that no firewall blocks the connection."
        ) from error
    except (OSError, AMQPError) as error:
        raise Unavailable(
            f"the broker at {broker_address} cannot be reached: {reason(error)}."
            " Start RabbitMQ, or correct BUS_URL."
        ) from error


async def _open(url: str, timeout: float) -> aio_pika.abc.AbstractConnection:
    async with asyncio.timeout(timeout):
        return await aio_pika.connect(url, timeout=timeout)


def address(url: str) -> str:
    """Return `host:port` of a broker's URL. Error texts must not show the rest of the URL."""
    try:
        parts = urlsplit(url)
        (parts.hostname or "").encode("idna")  # raises ValueError for a host such as `a..b`
        port = parts.port or (5671 if parts.scheme == "amqps" else 5672)
    except ValueError as error:
        raise ConfigurationError(
            "BUS_URL is not a valid URL. Set it to amqp://user:password@host:port/vhost, with"
            " special characters percent-encoded."
        ) from error
    if parts.scheme not in {"amqp", "amqps"} or not parts.hostname:
        raise ConfigurationError(
            "BUS_URL must be an amqp or amqps URL with a host."
            " Set it to amqp://user:password@host:port/vhost."
        )
    return f"{parts.hostname}:{port}"


def vhost_of(url: str) -> str:
    """Return the virtual host in a URL."""
    return unquote(urlsplit(url).path[1:]) or "/"


def reason(error: Exception) -> str:
    """Return the last argument of an exception, which is the error text."""
    return str(error.args[-1] if error.args else error) or type(error).__name__


def properties_of(connection: aio_pika.abc.AbstractConnection) -> Mapping[str, object]:
    """Return the server properties that the broker sent when the connection was opened."""
    transport = connection.transport
    properties = getattr(transport.connection, "server_properties", None) if transport else None
    return properties if isinstance(properties, Mapping) else {}


def describe(properties: Mapping[str, object]) -> BrokerInfo:
    """Return the server properties as a `BrokerInfo`."""
    fields = {key: str(properties.get(name, "unknown")) for key, name in FIELDS.items()}
    return BrokerInfo(**fields)


FIELDS = {
    "product": "product",
    "version": "version",
    "cluster": "cluster_name",
    "platform": "platform",
}
