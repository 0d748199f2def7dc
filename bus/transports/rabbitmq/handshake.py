"""Can this broker be reached, and which is it? One plain AMQP handshake, and goodbye."""

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

TIMEOUT_SECONDS = 5.0  # seconds for the whole; a handshake on a local network takes 10 ms


@dataclass(frozen=True, kw_only=True)
class BrokerInfo:
    """What a broker says of itself."""

    product: str
    version: str
    cluster: str
    platform: str


async def probe(url: str, timeout: float = TIMEOUT_SECONDS) -> BrokerInfo:
    """Connect and close; within `timeout` seconds the server's words, or an error that says what to do.

    Raises:
        ConfigurationError: the URL is none.
        Unauthenticated: the user, password or virtual host is refused.
        Unavailable: nobody answers there, or it does not speak AMQP 0-9-1.
    """
    async with connected(url, timeout) as connection:
        return describe(properties_of(connection))


@asynccontextmanager
async def connected(url: str, timeout: float) -> AsyncIterator[aio_pika.abc.AbstractConnection]:
    """A connection, made within `timeout` seconds and closed at the end; errors as of `probe`, also for one that breaks meanwhile."""
    where = address(url)
    try:
        connection = await _opened(url, timeout)
        try:
            yield connection
        finally:
            async with asyncio.timeout(timeout):
                await connection.close()
    except (AuthenticationError, ProbableAuthenticationError) as error:
        raise Unauthenticated(
            f"the broker at {where} refuses the user or the password; check them in BUS_URL, or in BUS_PASSWORD_FILE"
        ) from error
    except ProtocolSyntaxError as error:
        # RabbitMQ closes the connection instead of opening it, and aiormq calls that an unexpected frame.
        raise Unauthenticated(
            f"the broker at {where} refuses the virtual host {vhost_of(url)!r}: make it, or give this user rights to it"
        ) from error
    except TimeoutError as error:
        raise Unavailable(
            f"no answer from {where} within {timeout:g} s; is it a RabbitMQ, and is a firewall between?"
        ) from error
    except (OSError, AMQPError) as error:
        raise Unavailable(
            f"cannot reach a RabbitMQ at {where}: {reason(error)}; start it, or correct BUS_URL"
        ) from error


async def _opened(url: str, timeout: float) -> aio_pika.abc.AbstractConnection:
    async with asyncio.timeout(timeout):
        return await aio_pika.connect(url, timeout=timeout)


def address(url: str) -> str:
    """`host:port` of a broker's URL, which is all of it that may be shown."""
    try:
        parts = urlsplit(url)
        port = parts.port or (5671 if parts.scheme == "amqps" else 5672)
    except ValueError as error:
        raise ConfigurationError(
            "BUS_URL: give amqp://user:password@host:port/vhost, with anything unusual percent-encoded"
        ) from error
    if parts.scheme not in {"amqp", "amqps"} or not parts.hostname:
        raise ConfigurationError("BUS_URL: give amqp://user:password@host:port/vhost")
    return f"{parts.hostname}:{port}"


def vhost_of(url: str) -> str:
    """The virtual host that a URL names."""
    return unquote(urlsplit(url).path[1:]) or "/"


def reason(error: Exception) -> str:
    """What the operating system or the library says, without the libraries' tuple around it."""
    return str(error.args[-1] if error.args else error) or type(error).__name__


def properties_of(connection: aio_pika.abc.AbstractConnection) -> Mapping[str, object]:
    """What the server sent of itself when the connection was opened."""
    transport = connection.transport
    properties = getattr(transport.connection, "server_properties", None) if transport else None
    return properties if isinstance(properties, Mapping) else {}


def describe(properties: Mapping[str, object]) -> BrokerInfo:
    """The part of it that people ask for."""
    said = {key: str(properties.get(name, "unknown")) for key, name in FIELDS.items()}
    return BrokerInfo(**said)


FIELDS = {
    "product": "product",
    "version": "version",
    "cluster": "cluster_name",
    "platform": "platform",
}
