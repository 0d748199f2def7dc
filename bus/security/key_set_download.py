"""Download of the key set from an https URL.

The module is imported only if `BUS_JWKS` is a URL, because the HTTP client of the standard library
is slow to import. The management API of RabbitMQ is called with the same client.
"""

import asyncio
import http.client
import re
import socket
import ssl
import threading
import urllib.request
from base64 import b64encode
from contextlib import suppress
from ipaddress import IPv6Address
from urllib.parse import SplitResult, unquote, urlsplit

from bus.errors import ConfigurationError
from bus.messaging.blocking_calls import NoThreadError, call_in_daemon_thread

__all__ = ["KeySetUrl"]

CHUNK_BYTES = 64 * 1024
"""Maximum number of bytes that one read returns."""
OK = 200
REDIRECTS = range(300, 400)
TLS_PORT = 443
HOST = re.compile(r"[A-Za-z0-9._-]+")
"""Pattern of a host name or an IPv4 address."""
TARGET = re.compile(r"[!-~]*")
"""Pattern of the path and query: the characters that HTTP permits in a request."""


class KeySetUrl:
    """The URL of a key set. At most one thread downloads from it at a time."""

    def __init__(self, url: str, *, limit: float, max_bytes: int) -> None:
        """Remember the URL.

        Args:
            url: An https URL without user name.
            limit: Maximum seconds of a download: name resolution, connection, TLS, and answer.
            max_bytes: Maximum size of the key set.

        Raises:
            ConfigurationError: HTTP cannot request the URL.
        """
        self._url = urlsplit(url)
        _check_url(self._url)
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
            raise OSError(
                "the previous attempt has not ended yet. Check that the name server answers"
            )
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
        self._socket: socket.socket | None = None
        self._is_interrupted = False

    def interrupt(self) -> None:
        """Make the blocking call of `run` fail, in whichever thread it is.

        Only the call of the name server does not fail. `run` fails as soon as this call returns.
        """
        self._is_interrupted = True
        if self._socket is not None:
            # `SSLSocket.shutdown` would also change the state of the TLS object, which the other
            # thread uses. An OSError means that the socket is closed or not connected yet.
            with suppress(OSError):
                socket.socket.shutdown(self._socket, socket.SHUT_RDWR)

    def run(self) -> bytes:
        """Return the body of the answer. Raise `OSError` or `ConfigurationError`, and no other."""
        try:
            return self._run()
        except (OSError, ConfigurationError):
            raise
        # `http.client` raises a ValueError for a chunk with a negative size, for example.
        except (http.client.HTTPException, ValueError) as error:
            raise OSError(f"the answer is not valid HTTP ({type(error).__name__})") from None
        except Exception as error:  # noqa: BLE001 - no answer may end the reading of the keys
            raise OSError(f"the download failed ({type(error).__name__})") from None

    def _run(self) -> bytes:
        connection = self._prepare_connection()
        try:
            connection.connect()
            self._socket = connection.sock
            self._check_interrupted()
            return self._read(connection)
        finally:
            connection.close()

    def _prepare_connection(self) -> http.client.HTTPSConnection:
        context = ssl.create_default_context()
        context.set_alpn_protocols(["http/1.1"])
        host, port = _host_of(self._url), self._url.port or TLS_PORT
        proxy = _proxy_of(host)
        first = (host, port) if proxy is None else (_host_of(proxy), proxy.port or TLS_PORT)
        connection = http.client.HTTPSConnection(*first, timeout=self._limit, context=context)
        if proxy is not None:
            connection.set_tunnel(host, port, _proxy_credentials(proxy))
        # `connect` opens the socket, asks the proxy for a tunnel, and begins TLS. `interrupt` must
        # know the socket before the proxy is asked.
        connection._create_connection = self._open_socket  # type: ignore[attr-defined]  # noqa: SLF001
        return connection

    def _open_socket(self, address: tuple[str, int], *_: object) -> socket.socket:
        """Connect to the first address of a host that answers.

        In contrast to `socket.create_connection`, an interruption ends the search.
        """
        failure = OSError("the host has no address")
        for family, kind, protocol, _name, target in socket.getaddrinfo(
            *address, type=socket.SOCK_STREAM
        ):
            opened = self._socket = socket.socket(family, kind, protocol)
            try:
                self._check_interrupted()
                opened.settimeout(self._limit)
                opened.connect(target)
                # A shutdown of a socket that is not connected yet has no effect.
                self._check_interrupted()
            except OSError as error:
                opened.close()
                failure = error
                self._check_interrupted()
            else:
                return opened
        raise failure

    def _check_interrupted(self) -> None:
        if self._is_interrupted:
            raise TimeoutError

    def _read(self, connection: http.client.HTTPSConnection) -> bytes:
        connection.request(
            "GET",
            _target_of(self._url),
            headers={"Accept": "application/json", "Connection": "close"},
        )
        with connection.getresponse() as answer:
            _check_head(answer)
            return _read_body(answer, self._max_bytes)


def _check_url(url: SplitResult) -> None:
    try:
        _host_of(url)
    except ValueError:
        raise ConfigurationError(
            "BUS_JWKS: the host of the URL is not valid. Write https://host/path."
        ) from None
    if not TARGET.fullmatch(_target_of(url)):
        raise ConfigurationError(
            "BUS_JWKS: the path of the URL has a space or a character outside of ASCII. "
            "Write each of these characters percent-encoded, such as %20 for a space."
        )


def _host_of(url: SplitResult) -> str:
    """Return the host as ASCII. An international name is encoded with IDNA.

    Raises:
        ValueError: The URL has no host, or the host is neither a name nor an IP address.
    """
    host = url.hostname or ""
    if ":" in host:
        return str(IPv6Address(host))
    name = host.encode("idna").decode()
    if not HOST.fullmatch(name):
        raise ValueError("the host is not a name")
    return name


def _target_of(url: SplitResult) -> str:
    return (url.path or "/") + (f"?{url.query}" if url.query else "")


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
    try:
        parts = urlsplit(proxy if "://" in proxy else f"http://{proxy}")
        if parts.scheme in {"http", "https"} and _host_of(parts) and parts.port != 0:
            return parts
    except ValueError:  # The value is not in the text, because it can contain a password.
        pass
    raise OSError("https_proxy is not valid. Write it as http://host:port")


def _proxy_credentials(proxy: SplitResult) -> dict[str, str]:
    if proxy.username is None:
        return {}
    credentials = f"{unquote(proxy.username)}:{unquote(proxy.password or '')}"
    return {"Proxy-Authorization": f"Basic {b64encode(credentials.encode()).decode()}"}
