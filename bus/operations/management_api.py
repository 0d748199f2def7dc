"""A client for the parts of RabbitMQ's management API that the bus needs.

The bus uses this API to check whether its own broker has started, to inspect queues, and to read
the topology. Tests that share a broker use it to create virtual hosts.
"""

import asyncio
import base64
import http.client
import json
import ssl
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

from bus.errors import BusError, Unauthenticated, Unavailable
from bus.messaging.broker_addresses import HTTP, BrokerUrl, require_urls

__all__ = ["Management", "usual_address"]

TIMEOUT_SECONDS = 10.0
"""Maximum seconds for one call. If the broker is not overloaded, a call takes milliseconds."""
UNAUTHORIZED = 401
FIRST_FAILURE = 400
PORT, TLS_PORT = 15672, 15671
"""Ports that RabbitMQ's own configuration opens, for `http` and `https`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """The API on one host, and the credentials for it."""

    url: BrokerUrl
    user: str
    password: str = field(repr=False)
    authorities: str | None = None
    """Path of a file with the certificate authorities. None: those of the operating system."""

    @property
    def where(self) -> str:
        """The API's address, without user and password."""
        return f"{self.url.scheme}://{self.url.place}{self.prefix}"

    @property
    def prefix(self) -> str:
        """The path before `/api`, without the last `/`."""
        return self.url.path.rstrip("/")

    @property
    def headers(self) -> dict[str, str]:
        """The HTTP headers of each call."""
        basic = base64.b64encode(f"{self.user}:{self.password}".encode())
        return {"authorization": f"Basic {basic.decode()}", "content-type": "application/json"}

    def connect(self, timeout: float) -> http.client.HTTPConnection:
        """Return a connection that is not open. `timeout` is in seconds."""
        host, _, port = self.url.place.rpartition(":")
        host = host.strip("[]")
        if self.url.scheme == "http":
            return http.client.HTTPConnection(host, int(port), timeout=timeout)
        context = ssl.create_default_context(cafile=self.authorities)
        return http.client.HTTPSConnection(host, int(port), timeout=timeout, context=context)


class Management:
    """A client for one broker's API.

    The client uses the user and password in the API's URL. If this URL has no user, it uses those
    of the same host's AMQP URL, or of the first AMQP URL.

    If there are several hosts, the client uses the first one that answers, and keeps to it.
    """

    def __init__(
        self,
        management_url: str,
        amqp_url: str,
        *,
        timeout: float = TIMEOUT_SECONDS,
        cluster: str | None = None,
    ) -> None:
        """Read the addresses and credentials from the URLs.

        Args:
            management_url: `http://host:port` or `https://…`, or several of them. If the API has a
                path before `/api`, the URL includes this path.
            amqp_url: The broker's AMQP URL, or several of them. The parameter `cafile` is the path
                of a file with the certificate authorities.
            timeout: Maximum seconds for one call to one host.
            cluster: The name of the cluster. If there are several hosts, the client skips a host of
                another cluster. None: do not check.

        Raises:
            ConfigurationError: A URL is invalid.
        """
        brokers = require_urls(amqp_url)
        self._endpoints = [_endpoint(url, brokers) for url in require_urls(management_url, HTTP)]
        self._timeout = timeout
        self._cluster = cluster if len(self._endpoints) > 1 else None
        self.user = self._endpoints[0].user

    @property
    def where(self) -> str:
        """The API's address. It does not contain the password."""
        return ", ".join(endpoint.where for endpoint in self._endpoints)

    async def call(self, method: str, path: str, body: object = None) -> Any:
        """Call the API. Return the value of the JSON response, or None if the response is empty.

        Args:
            method: The HTTP method.
            path: The path after `/api/`.
            body: The value to send as JSON. None: send no body.

        Raises:
            Unauthenticated: The API refused the user or the password.
            Unavailable: The call failed for another reason, or the server is not a management API.
        """
        return await asyncio.to_thread(self._call_first, method, path, body)

    def _call_first(self, method: str, path: str, body: object) -> Any:
        """Call the first host that answers. Later calls use only this host."""
        errors: list[BusError] = []
        for endpoint in self._endpoints:
            try:
                self._check_cluster(endpoint)
                answer = self._call(endpoint, method, path, body)
            except (Unavailable, Unauthenticated) as error:
                errors.append(error)
            else:
                self._endpoints, self._cluster = [endpoint], None
                return answer
        if len(errors) == 1:
            raise errors[0]
        texts = "; ".join(dict.fromkeys(str(error) for error in errors))
        raise (type(errors[0]) if len({*map(type, errors)}) == 1 else Unavailable)(texts)

    def _check_cluster(self, endpoint: Endpoint) -> None:
        if self._cluster is None:
            return
        overview = self._call(endpoint, "GET", "overview", None)
        name = _item_of(overview, "cluster_name", endpoint.url.place)
        if name != self._cluster:
            raise Unavailable(
                f"the management API on {endpoint.where} belongs to the cluster {name!r}, and not "
                f"to {self._cluster!r}"
            )

    def _call(self, endpoint: Endpoint, method: str, path: str, body: object) -> Any:
        connection = endpoint.connect(self._timeout)
        try:
            connection.request(
                method,
                f"{endpoint.prefix}/api/{path}",
                json.dumps(body) if body is not None else None,
                endpoint.headers,
            )
            with connection.getresponse() as answer:
                content = answer.read()
        # `http.client` raises ValueError for a chunk with a negative size.
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise Unavailable(
                f"RabbitMQ's management API on {endpoint.url.place} does not answer: {error}"
            ) from error
        finally:
            connection.close()
        if answer.status == UNAUTHORIZED:
            raise Unauthenticated(f"RabbitMQ's management API refuses the user {endpoint.user!r}")
        if answer.status >= FIRST_FAILURE:
            raise Unavailable(
                "RabbitMQ's management API answered "
                f"{method} {path} with {answer.status} {answer.reason}"
            )
        try:
            return json.loads(content) if content else None
        except ValueError as error:
            raise _not_an_api(endpoint.url.place) from error

    async def version(self) -> str:
        """Return RabbitMQ's version, such as `4.0.5`. `call` lists the errors."""
        return _item_of(await self.call("GET", "overview"), "rabbitmq_version", self.where)

    async def cluster_name(self) -> str:
        """Return the name of the broker's cluster. `call` lists the errors."""
        return _item_of(await self.call("GET", "overview"), "cluster_name", self.where)

    async def add_vhost(self, name: str) -> None:
        """Create a virtual host, and give this client's user all permissions in it."""
        await self.call("PUT", f"vhosts/{quote(name, safe='')}")
        rights = {"configure": ".*", "write": ".*", "read": ".*"}
        await self.call(
            "PUT", f"permissions/{quote(name, safe='')}/{quote(self.user, safe='')}", rights
        )

    async def delete_vhost(self, name: str) -> None:
        """Delete a virtual host and its content. The broker closes all connections to it."""
        await self.call("DELETE", f"vhosts/{quote(name, safe='')}")


def usual_address(amqp_url: str) -> str:
    """Return the management API's default address on each host of the broker.

    The address has the host of the AMQP URL and the API's default port. If the AMQP URL uses TLS,
    the address is an `https` URL. So the password is not sent as plain text.

    Raises:
        ConfigurationError: The AMQP URL is invalid.
    """
    hosts = dict.fromkeys((url.scheme, url.host) for url in require_urls(amqp_url))
    return ";".join(
        f"https://{host}:{TLS_PORT}" if scheme == "amqps" else f"http://{host}:{PORT}"
        for scheme, host in hosts
    )


def _item_of(overview: object, key: str, place: str) -> str:
    """Return a text of the API's overview.

    Raises:
        Unavailable: The answer is not an overview of RabbitMQ.
    """
    item = overview.get(key) if isinstance(overview, dict) else None
    if not isinstance(item, str):
        raise _not_an_api(place)
    return item


def _not_an_api(place: str) -> Unavailable:
    return Unavailable(f"the server on {place} is not a management API of RabbitMQ")


def _endpoint(url: BrokerUrl, brokers: Sequence[BrokerUrl]) -> Endpoint:
    """Return the API at `url`. `brokers` are the AMQP URLs, one for each host."""
    broker = next((each for each in brokers if each.host == url.host), brokers[0])
    credentials = url if url.user else broker
    return Endpoint(
        url=url,
        user=credentials.user or "guest",
        password=credentials.password or "guest",
        authorities=next((value for name, value in broker.parameters if name == "cafile"), None),
    )
