"""A probe that connects to a broker, checks that the broker answers, and reads its version."""

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass

import aio_pika
from aiormq.exceptions import (
    AMQPError,
    AuthenticationError,
    ProbableAuthenticationError,
    ProtocolSyntaxError,
)

from bus.errors import BusError, ConfigurationError, Unauthenticated, Unavailable
from bus.messaging.broker_addresses import BrokerUrl, require_urls
from bus.transports.rabbitmq.cluster import Cluster
from bus.transports.rabbitmq.exceptions import join_errors
from bus.transports.rabbitmq.log_filter import redact_library_logs

__all__ = ["CLUSTER", "BrokerInfo", "connected", "probe", "vhost_of"]

CLUSTER = "cluster_name"
"""Server property with the name of the broker's cluster."""
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
        url: The broker's URL, or several URLs. The hosts are tried in turn.
        timeout: Timeout of the connect to one host, in seconds.

    Raises:
        ConfigurationError: The URL is not valid, the broker refuses the virtual host, or the
            broker belongs to another cluster than the other connections of this process.
        Unauthenticated: The broker refuses the user or the password.
        Unavailable: No server answers at this address, or the server does not use AMQP 0-9-1.
    """
    async with connected(url, timeout) as connection:
        return describe(properties_of(connection))


@asynccontextmanager
async def connected(url: str, timeout: float) -> AsyncIterator[aio_pika.abc.AbstractConnection]:
    """Open a connection, and close it at the end of the `with` block.

    Args:
        url: The broker's URL, or several URLs. The hosts are tried in turn.
        timeout: Timeout of the connect to one host, in seconds. The close has the same timeout.

    Yields:
        The open connection.

    Raises:
        BusError: One of the errors that `probe` raises. `Unavailable` is also raised if the
            connection is lost inside the `with` block.
    """
    redact_library_logs()
    hosts = require_urls(url)
    cluster = Cluster.of(hosts)
    connection, host = await _open_first(hosts, cluster, timeout)
    with _named_errors(host, timeout):
        try:
            yield connection
        finally:
            cluster.leave(connection)
            await _close(connection, timeout)


async def _open_first(
    hosts: Sequence[BrokerUrl], cluster: Cluster, timeout: float
) -> tuple[aio_pika.abc.AbstractConnection, BrokerUrl]:
    """Return a connection to the first host of the cluster that accepts it, and this host."""
    errors: list[BusError] = []
    for host in hosts:
        try:
            with _named_errors(host, timeout):
                async with asyncio.timeout(timeout):
                    connection = await aio_pika.connect(host.text, timeout=timeout)
                try:
                    cluster.join(connection, host.place, properties_of(connection).get(CLUSTER))
                except BusError:
                    await _close(connection, timeout)
                    raise
                return connection, host
        except BusError as error:
            errors.append(error)
    raise join_errors(errors)


async def _close(connection: aio_pika.abc.AbstractConnection, timeout: float) -> None:
    async with asyncio.timeout(timeout):
        await connection.close()


@contextmanager
def _named_errors(host: BrokerUrl, timeout: float) -> Iterator[None]:
    """Convert the errors inside the `with` block to errors that name the host."""
    try:
        yield
    except (AuthenticationError, ProbableAuthenticationError) as error:
        raise Unauthenticated(
            f"the broker at {host.place} refuses the user or the password."
            " Check them in BUS_URL, or in BUS_PASSWORD_FILE."
        ) from error
    except ProtocolSyntaxError as error:
        # If RabbitMQ refuses the virtual host, it closes the connection. aiormq reports the close
        # as an unexpected frame.
        raise ConfigurationError(
            f"the broker at {host.place} refuses the virtual host {host.virtual_host!r}."
            " Create it, or grant this user permissions for it."
        ) from error
    except TimeoutError as error:
        raise Unavailable(
            f"the broker at {host.place} did not answer within {timeout:g} s."
            " Check that RabbitMQ listens there, and that no firewall blocks the connection."
        ) from error
    except (OSError, AMQPError) as error:
        raise Unavailable(
            f"the broker at {host.place} cannot be reached: {reason(error)}."
            " Start RabbitMQ, or correct BUS_URL."
        ) from error


def vhost_of(url: str) -> str:
    """Return the virtual host in a URL. Several URLs have the same virtual host."""
    return require_urls(url)[0].virtual_host


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
    "cluster": CLUSTER,
    "platform": "platform",
}
