"""A client for the parts of RabbitMQ's management API that the bus needs.

The bus uses this API to check whether its own broker has started, to inspect queues, and to read
the topology. Tests that share a broker use it to create virtual hosts.
"""

import asyncio
import base64
import http.client
import json
import ssl
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import UnionType
from typing import Any
from urllib.parse import quote

from bus.errors import BusError, Unauthenticated, Unavailable
from bus.messaging.broker_addresses import HTTP, BrokerUrl, require_urls

__all__ = ["Fields", "Management", "usual_address"]

Fields = Mapping[str, type | UnionType]
"""The keys that an answer must have, each with the type of its value."""

TIMEOUT_SECONDS = 10.0
"""Maximum seconds for one call. If the broker is not overloaded, a call takes milliseconds."""
UNAUTHORIZED = 401
SUCCESSES = range(200, 300)
"""Statuses of a successful call. The client follows no redirect, because it sends a password."""
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One call to the API, and the answer that it must have."""

    method: str
    path: str
    """The path after `/api/`."""
    body: object = None
    """The value to send as JSON. None: send no body."""
    answer: type | None = None
    """`dict` for an object, `list` for a list of objects, None for any answer."""
    fields: Fields = field(default_factory=dict)
    """The fields of the object, or of each object in the list."""

    def accepts(self, value: Any) -> bool:
        """Return True if the answer has the expected form."""
        if self.answer is None:
            return True
        objects = value if isinstance(value, list) else [value]
        return isinstance(value, self.answer) and all(
            isinstance(each, dict)
            and all(isinstance(each.get(name), kind) for name, kind in self.fields.items())
            for each in objects
        )


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
            Unavailable: The call failed for another reason.
        """
        return await self._send(Call(method=method, path=path, body=body))

    async def read(self, path: str, fields: Fields) -> dict[str, Any]:
        """Read an object that has these fields.

        Args:
            path: The path after `/api/`.
            fields: The fields that the caller needs.

        Raises:
            Unauthenticated: The API refused the user or the password.
            Unavailable: The call failed for another reason, or the answer has another form.
        """
        call = Call(method="GET", path=path, answer=dict, fields=fields)
        value: dict[str, Any] = await self._send(call)
        return value

    async def read_list(self, path: str, fields: Fields) -> list[dict[str, Any]]:
        """Read a list of objects, which all have these fields. See `read`."""
        call = Call(method="GET", path=path, answer=list, fields=fields)
        value: list[dict[str, Any]] = await self._send(call)
        return value

    async def cluster_name(self) -> str:
        """Return the name of the broker's cluster. The errors are those of `read`."""
        return str((await self._send(OVERVIEW))["cluster_name"])

    async def version(self) -> str:
        """Return RabbitMQ's version, such as `4.0.5`. The errors are those of `read`."""
        return str((await self.read("overview", {"rabbitmq_version": str}))["rabbitmq_version"])

    async def _send(self, call: Call) -> Any:
        return await asyncio.to_thread(self._call_first, call)

    def _call_first(self, call: Call) -> Any:
        """Call the first host that answers as expected. Later calls use only this host."""
        errors: list[BusError] = []
        for endpoint in self._endpoints:
            try:
                self._check_cluster(endpoint)
                answer = self._call(endpoint, call)
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
        name = self._call(endpoint, OVERVIEW)["cluster_name"]
        if name != self._cluster:
            raise Unavailable(
                f"the management API on {endpoint.where} belongs to the cluster {name!r}, and not "
                f"to {self._cluster!r}"
            )

    def _call(self, endpoint: Endpoint, call: Call) -> Any:
        connection = endpoint.connect(self._timeout)
        try:
            connection.request(
                call.method,
                f"{endpoint.prefix}/api/{call.path}",
                json.dumps(call.body) if call.body is not None else None,
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
        if answer.status not in SUCCESSES:
            raise Unavailable(
                f"RabbitMQ's management API on {endpoint.url.place} answered "
                f"{call.method} {call.path} with {answer.status} {answer.reason}"
            )
        try:
            value = json.loads(content) if content else None
        # `json` raises RecursionError for thousands of nested lists.
        except (ValueError, RecursionError) as error:
            raise _not_the_api(endpoint, call, answer.status) from error
        if not call.accepts(value):
            raise _not_the_api(endpoint, call, answer.status)
        return value

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


OVERVIEW = Call(method="GET", path="overview", answer=dict, fields={"cluster_name": str})


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


def _not_the_api(endpoint: Endpoint, call: Call, status: int) -> Unavailable:
    return Unavailable(
        f"the server on {endpoint.url.place} is not a management API of RabbitMQ: it answered "
        f"{call.method} {call.path} with {status} and unexpected content"
    )
