"""RabbitMQ's management API, as far as starting and sharing a broker, and looking at its queues, need it."""

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

TIMEOUT_SECONDS = 10.0  # seconds for one call; they take milliseconds, so this only ends a hang
UNAUTHORIZED = 401
FIRST_FAILURE = 400


PORT, TLS_PORT = 15672, 15671


class Management:
    """One broker's API, with the user and password of its own URL, else of its AMQP URL."""

    def __init__(
        self, management_url: str, amqp_url: str, *, timeout: float = TIMEOUT_SECONDS
    ) -> None:
        """`management_url` is `http://host:port`, or `https://…`, with the path before `/api` where there is one.

        `timeout` is for one call, in seconds. Who vouches for it is in the AMQP URL (`?cafile=`). Raises `ConfigurationError`
        for what is no such URL.
        """
        address, credentials = _parts(management_url), urlsplit(amqp_url)
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
        """Its address, without the password."""
        return f"{'https' if self._tls else 'http'}://{self._host}:{self._port}{self._prefix}"

    async def call(self, method: str, path: str, body: object = None) -> Any:
        """The answer's JSON, None where it has no body; `Unauthenticated`, or `Unavailable` for any other failure."""
        return await asyncio.to_thread(self._call, method, path, body)

    def _call(self, method: str, path: str, body: object) -> Any:
        connection = self._connection()
        try:
            connection.request(
                method,
                f"{self._prefix}/api/{path}",
                json.dumps(body) if body is not None else None,
                self._headers,
            )
            answer = connection.getresponse()
            content = answer.read()
        except (OSError, http.client.HTTPException) as error:
            raise Unavailable(
                f"RabbitMQ's management API on {self._host}:{self._port} does not answer: {error}"
            ) from error
        finally:
            connection.close()
        if answer.status == UNAUTHORIZED:
            raise Unauthenticated(f"RabbitMQ's management API refuses the user {self.user!r}")
        if answer.status >= FIRST_FAILURE:
            raise Unavailable(
                f"RabbitMQ's management API: {method} {path}: {answer.status} {answer.reason}"
            )
        try:
            return json.loads(content) if content else None
        except ValueError as error:
            raise Unavailable(
                f"what answers on {self._host}:{self._port} is no management API of RabbitMQ"
            ) from error

    def _connection(self) -> http.client.HTTPConnection:
        if not self._tls:
            return http.client.HTTPConnection(self._host, self._port, timeout=self._timeout)
        context = ssl.create_default_context(cafile=self._authorities)
        return http.client.HTTPSConnection(
            self._host, self._port, timeout=self._timeout, context=context
        )

    async def version(self) -> str:
        """RabbitMQ's version, such as `4.0.5`."""
        overview = await self.call("GET", "overview")
        return str(overview["rabbitmq_version"])

    async def add_vhost(self, name: str) -> None:
        """Make a virtual host in which this user may do everything."""
        await self.call("PUT", f"vhosts/{quote(name, safe='')}")
        rights = {"configure": ".*", "write": ".*", "read": ".*"}
        await self.call(
            "PUT", f"permissions/{quote(name, safe='')}/{quote(self.user, safe='')}", rights
        )

    async def delete_vhost(self, name: str) -> None:
        """Remove a virtual host and all that is in it; its connections are closed by the broker."""
        await self.call("DELETE", f"vhosts/{quote(name, safe='')}")


def usual_address(amqp_url: str) -> str:
    """Where the API of the broker at an AMQP URL usually is. The password never goes there in the clear where AMQP is encrypted."""
    parts = urlsplit(amqp_url)
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname or "localhost"
    return f"https://{host}:{TLS_PORT}" if parts.scheme == "amqps" else f"http://{host}:{PORT}"


def _parts(url: str) -> SplitResult:
    with contextlib.suppress(ValueError):
        parts = urlsplit(url)
        if (
            parts.scheme in {"http", "https"} and parts.hostname and parts.port != 0
        ):  # .port raises ValueError for what is none
            return parts
    raise ConfigurationError(
        "BUS_MANAGEMENT_URL names no management API: give http://host:port, or https://…"
    )
