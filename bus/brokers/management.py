"""RabbitMQ's management API, as far as starting and sharing a broker needs it."""

import asyncio
import base64
import http.client
import json
from typing import Any
from urllib.parse import quote, unquote, urlsplit

from bus.errors import Unauthenticated, Unavailable

__all__ = ["Management"]

TIMEOUT = 10.0  # seconds for one call; they take milliseconds, so this only ends a hang
UNAUTHORIZED = 401
FIRST_FAILURE = 400


class Management:
    """One broker's API, with the user and password of its AMQP URL."""

    def __init__(self, management_url: str, amqp_url: str) -> None:
        address, credentials = urlsplit(management_url), urlsplit(amqp_url)
        self._host, self._port = address.hostname or "localhost", address.port or 15672
        self.user = unquote(credentials.username or "guest")
        basic = base64.b64encode(f"{self.user}:{unquote(credentials.password or 'guest')}".encode())
        self._headers = {"authorization": f"Basic {basic.decode()}", "content-type": "application/json"}

    async def call(self, method: str, path: str, body: object = None) -> Any:
        """The answer's JSON, None where it has no body; `Unauthenticated`, or `Unavailable` for any other failure."""
        return await asyncio.to_thread(self._call, method, path, body)

    def _call(self, method: str, path: str, body: object) -> Any:
        connection = http.client.HTTPConnection(self._host, self._port, timeout=TIMEOUT)
        try:
            connection.request(method, f"/api/{path}", json.dumps(body) if body is not None else None, self._headers)
            answer = connection.getresponse()
            content = answer.read()
        except (OSError, http.client.HTTPException) as error:
            raise Unavailable(f"RabbitMQ's management API on {self._host}:{self._port} does not answer: {error}") from error
        finally:
            connection.close()
        if answer.status == UNAUTHORIZED:
            raise Unauthenticated(f"RabbitMQ's management API refuses the user {self.user!r}")
        if answer.status >= FIRST_FAILURE:
            raise Unavailable(f"RabbitMQ's management API: {method} {path}: {answer.status} {answer.reason}")
        return json.loads(content) if content else None

    async def version(self) -> str:
        """RabbitMQ's version, such as `4.0.5`."""
        overview = await self.call("GET", "overview")
        return str(overview["rabbitmq_version"])

    async def add_vhost(self, name: str) -> None:
        """Make a virtual host in which this user may do everything."""
        await self.call("PUT", f"vhosts/{quote(name, safe='')}")
        rights = {"configure": ".*", "write": ".*", "read": ".*"}
        await self.call("PUT", f"permissions/{quote(name, safe='')}/{quote(self.user, safe='')}", rights)

    async def delete_vhost(self, name: str) -> None:
        """Remove a virtual host and all that is in it; its connections are closed by the broker."""
        await self.call("DELETE", f"vhosts/{quote(name, safe='')}")
