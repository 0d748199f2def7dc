"""Download of the key set from an https URL.

The module is imported only if `BUS_JWKS` is a URL, because the HTTP client of the standard library
is slow to import. The management API of RabbitMQ is called with the same client.
"""

import asyncio
import http.client
import socket
import ssl
import threading
import urllib.request
from base64 import b64encode
from contextlib import suppress
from urllib.parse import SplitResult, unquote, urlsplit

from bus.errors import ConfigurationError
from bus.messaging.blocking_calls import NoThreadError, call_in_daemon_thread

__all__ = ["KeySetUrl"]

CHUNK_BYTES = 64 * 1024
"""Maximum number of bytes that one read returns."""
OK = 200
REDIRECTS = range(300, 400)
TLS_PORT = 443


class KeySetUrl:
    """The URL of a key set. At most one thread downloads from it at a time."""

    def __init__(self, url: str, *, limit: float, max_bytes: int) -> None:
        """Remember the URL.

        Args:
            url: An https URL without user name.
            limit: Maximum seconds of a download: name resolution, connection, TLS, and answer.
            max_bytes: Maximum size of the key set.
        """
        self._url = urlsplit(url)
        self._limit = limit
        self._max_bytes = max_bytes
        self._is_busy = threading.Lock()

    async def read(self) -> bytes:
        """Return the body of the answer.

        Raises:
            OSError: The server cannot be reached, its certificate is not valid, or it did not send
                a complete key set within the limit. `TimeoutError` is an `OSError`.
            ConfigurationError: The key set is too large.
        """
        # The thread of an earlier download can still wait for the name server, which no other
        # thread can interrupt. A second thread would wait for the same name server.
        if not self._is_busy.acquire(blocking=False):
            raise OSError("the name server has not answered the previous attempt yet")
        download = _Download(self._url, self._limit, self._max_bytes)

        def run() -> bytes:
            try:
                return download.run()
            finally:
                self._is_busy.release()

        try:
            async with asyncio.timeout(self._limit):
                return await call_in_daemon_thread(
                    run, interrupt=download.interrupt, name="bus-key-set"
                )
        except NoThreadError:
            self._is_busy.release()
            raise
        except TimeoutError:
            raise TimeoutError(
                f"the server did not send a complete key set within {self._limit:g} s"
            ) from None


class _Download:
    """One download, which another thread can interrupt."""

    def __init__(self, url: SplitResult, limit: float, max_bytes: int) -> None:
        self._url = url
        self._limit = limit
        self._max_bytes = max_bytes
        self._connection: http.client.HTTPSConnection | None = None
        self._socket: socket.socket | None = None
        self._is_interrupted = False

    def interrupt(self) -> None:
        """Make the blocking call of `run` fail, in whichever thread it is."""
        self._is_interrupted = True
        # While the connection is being opened, only the connection has the socket. After the
        # answer's headers, the connection has given the socket away.
        opened = self._socket
        if opened is None and self._connection is not None:
            opened = self._connection.sock
        if opened is not None:
            # `SSLSocket.shutdown` would also change the state of the TLS object, which the other
            # thread uses. An OSError means that the socket is closed or not connected yet.
            with suppress(OSError):
                socket.socket.shutdown(opened, socket.SHUT_RDWR)

    def run(self) -> bytes:
        connection = self._connection = self._prepare_connection()
        try:
            connection.connect()
            self._socket = connection.sock
            if self._is_interrupted:
                raise TimeoutError
            return self._read(connection)
        except http.client.HTTPException as error:
            raise OSError(f"the answer is not valid HTTP ({type(error).__name__})") from None
        finally:
            connection.close()

    def _prepare_connection(self) -> http.client.HTTPSConnection:
        context = ssl.create_default_context()
        context.set_alpn_protocols(["http/1.1"])
        host, port = self._url.hostname or "", self._url.port or TLS_PORT
        proxy = _proxy_of(host)
        if proxy is None:
            return http.client.HTTPSConnection(host, port, timeout=self._limit, context=context)
        connection = http.client.HTTPSConnection(
            proxy.hostname or "", proxy.port, timeout=self._limit, context=context
        )
        connection.set_tunnel(host, port, _proxy_credentials(proxy))
        return connection

    def _read(self, connection: http.client.HTTPSConnection) -> bytes:
        path = (self._url.path or "/") + (f"?{self._url.query}" if self._url.query else "")
        connection.request(
            "GET", path, headers={"Accept": "application/json", "Connection": "close"}
        )
        with connection.getresponse() as answer:
            _check_head(answer)
            return _read_body(answer, self._max_bytes)


def _check_head(answer: http.client.HTTPResponse) -> None:
    if answer.status in REDIRECTS:
        # Only the configured host may supply keys.
        raise OSError(
            f"the server answered with status {answer.status}, a redirect. "
            "Set BUS_JWKS to the final URL"
        )
    if answer.status != OK:
        raise OSError(f"the server answered with status {answer.status}")
    if answer.getheader("Content-Encoding", "identity").lower() != "identity":
        raise OSError("the answer has a Content-Encoding. Configure the server to send none")


def _read_body(answer: http.client.HTTPResponse, max_bytes: int) -> bytes:
    expected = answer.length
    body = bytearray()
    while chunk := answer.read(CHUNK_BYTES):
        body += chunk
        if len(body) > max_bytes:
            raise ConfigurationError(
                f"BUS_JWKS: the key set is larger than {max_bytes} bytes. Remove unused keys."
            )
    if expected is not None and len(body) != expected:
        raise OSError("the answer ended before its last byte")
    return bytes(body)


def _proxy_of(host: str) -> SplitResult | None:
    """Return the address of the proxy in `https_proxy`, unless `no_proxy` names the host.

    The proxy only forwards bytes. TLS ends at the configured host.
    """
    proxy = urllib.request.getproxies().get("https")
    if not proxy or urllib.request.proxy_bypass(host):
        return None
    parts = urlsplit(proxy if "://" in proxy else f"http://{proxy}")
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise OSError("https_proxy must be http://host:port")
    return parts


def _proxy_credentials(proxy: SplitResult) -> dict[str, str]:
    if proxy.username is None:
        return {}
    credentials = f"{unquote(proxy.username)}:{unquote(proxy.password or '')}"
    return {"Proxy-Authorization": f"Basic {b64encode(credentials.encode()).decode()}"}
