"""A client for the parts of RabbitMQ's management API that the bus needs.

The bus uses this API to check whether its own broker has started, to inspect queues, and to read
the topology. Tests that share a broker use it to create virtual hosts.
"""

import asyncio
import base64
import contextlib
import http.client
import json
import ssl
from typing import Any
from urllib.parse import SplitResult, parse_qs, quote, unquote, urlsplit

from bus.errors import ConfigurationError, Unauthenticated, Unavailable

__all__ = ["Management", "usual_address"]

TIMEOUT_SECONDS = 10.0
"""Maximum seconds for one call. If the broker is not overloaded, a call takes milliseconds."""
UNAUTHORIZED = 401
FIRST_FAILURE = 400


PORT, TLS_PORT = 15672, 15671


class Management:
    """A client for one broker's API.

    The client uses the user and password in the API's URL. If this URL has no user, the client uses
    the user and password in the AMQP URL.
    """

    def __init__(
        self, management_url: str, amqp_url: str, *, timeout: float = TIMEOUT_SECONDS
    ) -> None:
        """Read the addresses and credentials from the URLs.

        Args:
            management_url: `http://host:port` or `https://…`. If the API has a path before `/api`,
                the URL includes this path.
            amqp_url: The broker's AMQP URL. Its parameter `cafile` is the path of a file with the
                certificate authorities.
            timeout: Maximum seconds for one call.

        Raises:
            ConfigurationError: `management_url` is invalid.
        """
        address, credentials = _parse_url(management_url), urlsplit(amqp_url)
        if address.username:
            credentials = address
        self._tls, self._timeout = address.scheme == "https", timeout
        self._authorities = next(iter(parse_qs(urlsplit(amqp_url).query).get("cafile", ())), None)
        self._host, self._port = (
            address.hostname or "localhost",
            address.port or (443 if self._tls else PORT),
        )
        self._prefix = address.path.rstrip("/")
        self.user = unquote(credentials.username or "guest")
        basic = base64.b64encode(f"{self.user}:{unquote(credentials.password or 'guest')}".encode())
        self._headers = {
            "authorization": f"Basic {basic.decode()}",
            "content-type": "application/json",
        }

    @property
    def where(self) -> str:
        """The API's address. It does not contain the password."""
        return f"{'https' if self._tls else 'http'}://{self._host}:{self._port}{self._prefix}"

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
        return await asyncio.to_thread(self._call, method, path, body)

    def _call(self, method: str, path: str, body: object) -> Any:
        connection = self._open_connection()
        try:
            connection.request(
                method,
                f"{self._prefix}/api/{path}",
                json.dumps(body) if body is not None else None,
                self._headers,
            )
            answer = connection.getresponse()
            content = answer.read()
        # `http.client` raises ValueError for a chunk with a negative size.
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise Unavailable(
                f"RabbitMQ's management API on {self._host}:{self._port} does not answer: {error}"
            ) from error
        finally:
            connection.close()
        if answer.status == UNAUTHORIZED:
            raise Unauthenticated(f"RabbitMQ's management API refuses the user {self.user!r}")
        if answer.status >= FIRST_FAILURE:
            raise Unavailable(
                "RabbitMQ's management API answered "
                f"{method} {path} with {answer.status} {answer.reason}"
            )
        try:
            return json.loads(content) if content else None
        except ValueError as error:
            raise Unavailable(
                f"the server on {self._host}:{self._port} is not a management API of RabbitMQ"
            ) from error

    def _open_connection(self) -> http.client.HTTPConnection:
        if not self._tls:
            return http.client.HTTPConnection(self._host, self._port, timeout=self._timeout)
        context = ssl.create_default_context(cafile=self._authorities)
        return http.client.HTTPSConnection(
            self._host, self._port, timeout=self._timeout, context=context
        )

    async def version(self) -> str:
        """Return RabbitMQ's version, such as `4.0.5`."""
        overview = await self.call("GET", "overview")
        return str(overview["rabbitmq_version"])

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
    """Return the management API's default address.

    The address has the host of the AMQP URL and the API's default port. If the AMQP URL uses TLS,
    the address is an `https` URL. So the password is not sent as plain text.
    """
    parts = urlsplit(amqp_url)
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname or "localhost"
    return f"https://{host}:{TLS_PORT}" if parts.scheme == "amqps" else f"http://{host}:{PORT}"


def _parse_url(url: str) -> SplitResult:
    with contextlib.suppress(ValueError):
        parts = urlsplit(url)
        # `parts.port` raises ValueError if the URL's port is invalid.
        # The encoding with IDNA raises ValueError if a label of the host is empty or too long.
        host = (parts.hostname or "").encode("idna")
        if parts.scheme in {"http", "https"} and host and parts.port != 0:
            return parts
    raise ConfigurationError(
        "BUS_MANAGEMENT_URL must be http://host:port or https://host:port. Correct or unset it."
    )
