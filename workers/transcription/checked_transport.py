"""HTTP transport that connects only to allowed hosts.

The transport resolves a name once, checks the addresses, and connects to one of the checked
addresses. A name server can therefore not return a public address for the check and a private
address for the connection ("DNS rebinding"). Each redirect is a request of its own.
"""

import asyncio
import re
from collections.abc import Collection, Sequence
from itertools import chain, zip_longest

import httpx
from typing_extensions import override

from bus import InvalidArgument, PermissionDenied
from workers.transcription.addresses import (
    canonical_host,
    is_address,
    is_loopback_name,
    is_public,
)
from workers.transcription.resolver import Resolver

__all__ = ["CheckedTransport", "check_characters", "check_url"]

MOST_ADDRESSES = 3
"""Maximum number of addresses of a host to try. They share the time to connect."""
AMBIGUOUS = re.compile(r"[\s\\\x00-\x1f\x7f-\x9f]")
"""Characters that a URL cannot contain (RFC 3986), and that parsers read in different ways.

In `http://a:80\\@b/`, httpx connects to `b`, and a browser to `a`. Some parsers drop a line feed.
"""


class CheckedTransport(httpx.AsyncBaseTransport):
    """Transport that checks the host of each request before it sends the request.

    If `hosts` is not empty, only these hosts are allowed, in the spelling of `canonical_host`. If
    it is empty, all hosts with a public address are allowed. `resolver` is None if a proxy resolves
    the names. The proxy is then responsible for the addresses of names.
    """

    def __init__(
        self,
        inner: httpx.AsyncBaseTransport,
        *,
        hosts: Collection[str] = (),
        resolver: Resolver | None,
    ) -> None:
        self._inner = inner
        self._hosts = hosts
        self._resolver = resolver

    @override
    async def aclose(self) -> None:
        """Close the inner transport."""
        await self._inner.aclose()

    @override
    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send the request to an allowed address of its host.

        Raise `InvalidArgument` if the URL is invalid, and `PermissionDenied` if the host is not
        allowed. Raise the errors of httpx if the request fails.
        """
        host = check_url(request.url)
        if self._hosts and host not in self._hosts:
            raise PermissionDenied(f"{host} is not in TRANSCRIPTION_HOSTS. Add it.")
        if self._resolver is None and not is_address(host):
            if not self._hosts and is_loopback_name(host):
                raise _not_public(host)
            return await self._inner.handle_async_request(request)
        loop = asyncio.get_running_loop()
        until = loop.time() + request.extensions["timeout"]["connect"]
        addresses = self._allowed(host, await self._addresses(request, host))
        for left in range(len(addresses) - 1, -1, -1):
            connect = max((until - loop.time()) / (left + 1), 0.001)
            try:
                return await self._inner.handle_async_request(
                    _addressed(request, addresses[-1 - left], host, connect)
                )
            except (httpx.ConnectError, httpx.ConnectTimeout):
                if not left:
                    raise
        raise httpx.ConnectError("the host has no address", request=request)

    async def _addresses(self, request: httpx.Request, host: str) -> Sequence[str]:
        if self._resolver is None or is_address(host):
            return [host]
        try:
            async with asyncio.timeout(request.extensions["timeout"]["connect"]):
                return await self._resolver.addresses(host)
        except TimeoutError as error:
            raise httpx.ConnectTimeout("the lookup is too slow", request=request) from error
        except OSError as error:
            raise httpx.ConnectError("the lookup failed", request=request) from error

    def _allowed(self, host: str, addresses: Sequence[str]) -> Sequence[str]:
        """Return the addresses to try, at most `MOST_ADDRESSES`."""
        allowed = [address for address in addresses if self._hosts or is_public(address)]
        if not allowed:
            raise _not_public(host)
        return _alternated(allowed)[:MOST_ADDRESSES]


def check_characters(url: str) -> None:
    """Raise `InvalidArgument` if a URL has white space, a backslash or a control character."""
    if AMBIGUOUS.search(url):
        problem = "the URL of the recording has white space, a backslash or a control character"
        raise InvalidArgument(f"{problem}. Percent-encode it, such as %20 for a space.")


def check_url(url: httpx.URL) -> str:
    """Return the URL's host in the spelling of `canonical_host`.

    Raise `InvalidArgument` if the URL is not an http(s) URL with a valid host and port.
    """
    try:
        if url.scheme in {"http", "https"} and (url.port is None or url.port in range(1, 65_536)):
            return canonical_host(url.raw_host.decode("ascii"))
    except ValueError:
        pass
    raise InvalidArgument("audio_url is not a valid URL. Write it as http(s)://host/path.")


def _alternated(addresses: Sequence[str]) -> list[str]:
    """Return the addresses with IPv6 and IPv4 in turn, beginning with the family of the first.

    If one family is not routed here, the other one is then tried second.
    """
    first = [address for address in addresses if (":" in address) == (":" in addresses[0])]
    second = [address for address in addresses if address not in first]
    return [a for a in chain.from_iterable(zip_longest(first, second)) if a is not None]


def _addressed(request: httpx.Request, address: str, host: str, connect: float) -> httpx.Request:
    """Return the request with an address as the host of the connection.

    The header `Host` and the name in the server's certificate stay those of the original request.
    """
    timeout = {**request.extensions["timeout"], "connect": connect}
    return httpx.Request(
        request.method,
        request.url.copy_with(host=address),
        headers=request.headers,
        stream=request.stream,
        extensions={**request.extensions, "sni_hostname": host, "timeout": timeout},
    )


def _not_public(host: str) -> PermissionDenied:
    expected = f"""set TRANSCRIPTION_HOSTS='["{host}"]', together with each other host you need"""
    problem = f"{host} has no public address"
    return PermissionDenied(f"{problem}. To download from this host, {expected}.")
