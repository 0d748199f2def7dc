"""Download of recordings by http(s) into an unnamed temporary file.

A recording is never held in memory, and a download stops at the size limit. The file has no name.
Therefore the system removes a patient's recording when this process ends, even by kill -9.
"""

import asyncio
import logging
import ssl
import tempfile
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from http.cookiejar import CookieJar
from typing import Any, BinaryIO, Self

import httpx
from typing_extensions import override

from bus import (
    BusError,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    PermissionDenied,
    ResourceExhausted,
    Unavailable,
)
from workers.transcription.checked_transport import (
    CheckedTransport,
    check_characters,
    check_url,
)
from workers.transcription.limits import check_size
from workers.transcription.resolver import Resolver
from workers.transcription.settings import TranscriptionSettings

__all__ = ["Downloads"]

MOST_REDIRECTS = 5
"""Maximum number of redirects.

An object store may redirect from its entry point to a region, and from there to a signed URL. The
other redirects are a reserve.
"""
WHOLE = {200, 203}
"""Statuses with the whole recording. With 203, a proxy has changed it, for example its codec."""
PARTIAL = {206, 226}
"""Statuses with a part of the recording, or a change of it (RFC 9110, 3229)."""
EMPTY = {204, 205}
"""Statuses without a body (RFC 9110)."""
NOW_NOT = {202, 408, 425, 429}
"""Statuses below 500 that mean "later" (RFC 9110, 6585, 8470)."""
CHUNKS_AT_ONCE = 50
"""Maximum number of chunks to save before other tasks run.

A server can send chunks of one byte. Without this limit, one read from the network has 10,000 of
them, which block the event loop for 0.4 s.
"""


class NoCookies(CookieJar):
    """Cookie jar that stays empty.

    The standard library parses cookies before it asks a policy. It needs quadratic time for a
    header such as `Set-Cookie2: a,a,a`, so 90 kB block the event loop for half a second.
    """

    @override
    def extract_cookies(self, response: Any, request: Any) -> None:
        """Ignore the cookies of a response."""


class Downloads:
    """Downloader of recordings."""

    def __init__(
        self, transport: httpx.AsyncBaseTransport, *, max_bytes: int, timeout: httpx.Timeout
    ) -> None:
        """Use `timeout.read` as the limit of a whole download."""
        self._transport = transport
        self._max_bytes = max_bytes
        self._timeout = timeout

    @classmethod
    @asynccontextmanager
    async def opened(cls, settings: TranscriptionSettings) -> AsyncIterator[Self]:
        """Open the transport, and close it when the block ends."""
        # httpx logs the URL of each request, which can contain a patient's name.
        for library in ("httpx", "httpcore"):
            logging.getLogger(library).setLevel(logging.WARNING)
        async with CheckedTransport(
            httpx.AsyncHTTPTransport(
                trust_env=False,
                proxy=settings.proxy,
                # Keep no connection: a request for another name at the same address would use it,
                # and the certificate would not be checked for that name.
                limits=httpx.Limits(max_keepalive_connections=0),
            ),
            hosts=settings.hosts,
            resolver=None if settings.proxy else Resolver(),
        ) as transport:
            yield cls(
                transport,
                max_bytes=settings.max_bytes,
                timeout=httpx.Timeout(settings.fetch_timeout, connect=settings.connect_timeout),
            )

    async def fetch(self, url: str) -> BinaryIO:
        """Download a recording, and return it as an open file at its beginning.

        Raise `Unavailable` or `ResourceExhausted` if a later attempt may succeed. Raise
        `OutOfRange` if the recording is too large, and `NotFound` or `PermissionDenied` if the
        server reports this. Raise `PermissionDenied` also if the host is not allowed. Raise
        `InvalidArgument` or `FailedPrecondition` if a later attempt cannot succeed.
        """
        check_characters(url)
        file = tempfile.TemporaryFile()  # noqa: SIM115 - the caller closes it
        try:
            async with asyncio.timeout(self._timeout.read):
                await self._into(file, url)
            file.seek(0)
        except BaseException as error:
            file.close()
            if isinstance(error, OSError | httpx.HTTPError | httpx.InvalidURL | UnicodeError):
                raise _error(error, url) from error
            raise
        return file

    async def _into(self, file: BinaryIO, url: str) -> None:
        client = self._client()
        request = client.build_request("GET", url)
        for _ in range(MOST_REDIRECTS + 1):
            response = await _response(client, request)
            # The body of a redirect is not read, because it could be endless.
            async with aclosing(response):
                if response.next_request is None:
                    await self._save(response, file, url)
                    return
                request = response.next_request
        problem = f"{_place(url)} redirects more than {MOST_REDIRECTS} times"
        raise FailedPrecondition(f"{problem}. Send the final URL.")

    def _client(self) -> httpx.AsyncClient:
        """Return a client for one download. It ignores all cookies."""
        return httpx.AsyncClient(
            transport=self._transport,
            timeout=self._timeout,
            cookies=NoCookies(),
            # Request an uncompressed body: the size of a compressed body is unknown in advance.
            headers={"Accept": "audio/wav, */*;q=0.1", "Accept-Encoding": "identity"},
            # Do not read ~/.netrc: httpx would send its passwords to any host that a job names.
            trust_env=False,
            event_hooks={"response": [_check_redirect]},
        )

    async def _save(self, response: httpx.Response, file: BinaryIO, url: str) -> None:
        _check(response, url)
        if "content-length" in response.headers:
            check_size(int(response.headers["content-length"]), self._max_bytes)
        # Read the raw body. It is not compressed, because `_check` refuses a compressed body.
        chunks = 0
        async for chunk in response.aiter_raw():
            file.write(chunk)
            check_size(response.num_bytes_downloaded, self._max_bytes)
            chunks += 1
            if chunks % CHUNKS_AT_ONCE == 0:
                await asyncio.sleep(0)


async def _response(client: httpx.AsyncClient, request: httpx.Request) -> httpx.Response:
    """Send the request, and return the response without its body.

    Raise `InvalidArgument` if the beginning of the response is not valid HTTP.
    """
    try:
        return await client.send(request, stream=True)
    except httpx.RemoteProtocolError as error:
        # If the answer is invalid, httpcore wraps an error of h11. If the connection ends too
        # early, httpcore's error has only a text. Errors in a body stay `Unavailable`, because a
        # server that fails while it sends a body can cause them.
        if not (error.__cause__ and any(isinstance(a, Exception) for a in error.__cause__.args)):
            raise
        problem = f"{_place(str(request.url))} does not answer in valid HTTP"
        raise InvalidArgument(
            f"{problem}. Check the port, and the headers of the answer."
        ) from error


async def _check_redirect(response: httpx.Response) -> None:
    """Refuse a redirect to an invalid URL, or to a URL with a user name.

    httpx would report it as a lost connection, or would complete the URL.
    """
    if not response.has_redirect_location:
        return
    location = response.headers["location"]
    try:
        check_characters(location)
        given = httpx.URL(location)
        check_url(response.request.url.join(given))
        # RFC 9110, 4.2.4: a user name in a URL from another party may hide the real host.
        is_valid = not given.userinfo and bool(given.host or not given.scheme)
    except (httpx.InvalidURL, ValueError, InvalidArgument):
        is_valid = False
    if not is_valid:
        problem = f"{_place(str(response.request.url))} redirects to an invalid URL"
        raise InvalidArgument(f"{problem}. Send the final URL.")


def _place(url: str) -> str:
    """Return scheme, host and port of a URL for an error.

    Path, query and user name are left out, because they may identify a patient.
    """
    parsed = httpx.URL(url)
    return f"{parsed.scheme}://{parsed.netloc.decode('ascii')}"


def _check(response: httpx.Response, url: str) -> None:
    status = response.status_code
    if status in WHOLE:
        if response.headers.get("content-encoding", "").strip().lower() not in {"", "identity"}:
            problem = f"{_place(url)} compresses the recording despite Accept-Encoding"
            raise FailedPrecondition(f"{problem}. Serve it uncompressed.")
        return
    if status in PARTIAL:
        problem = f"{_place(url)} sends only a part of the recording (HTTP {status})"
        raise InvalidArgument(f"{problem}. Send a URL of the whole recording.")
    if status in EMPTY:
        problem = f"{_place(url)} sends no recording (HTTP {status})"
        raise InvalidArgument(f"{problem}. Check that its upload completed.")
    if status in {404, 410}:
        raise NotFound(f"{_place(url)} has no such recording (HTTP {status}). Check audio_url.")
    if status in {401, 403}:
        problem = f"{_place(url)} refuses access to the recording (HTTP {status})"
        raise PermissionDenied(f"{problem}. Send a URL that grants access.")
    if status in NOW_NOT or response.is_server_error:
        problem = f"{_place(url)} cannot send the recording now (HTTP {status})"
        raise Unavailable(f"{problem}. Try again later.")
    problem = f"{_place(url)} does not send the recording (HTTP {status})"
    raise FailedPrecondition(f"{problem}. Open audio_url in a browser to see the reason.")


def _error(error: BaseException, url: str) -> BusError:
    match error:
        case httpx.InvalidURL() | httpx.UnsupportedProtocol() | UnicodeError():
            return InvalidArgument("audio_url is not a valid URL. Write it as http(s)://host/path.")
        case httpx.ConnectError() | httpx.ConnectTimeout() | httpx.ProxyError():
            return Unavailable(f"{_place(url)} cannot be reached. Check host, port and network.")
        case TimeoutError() | httpx.TimeoutException():
            problem = f"{_place(url)} is too slow"
            return Unavailable(f"{problem}. Try again later, or raise TRANSCRIPTION_FETCH_TIMEOUT.")
        case OSError() if not isinstance(error, ssl.SSLError | ConnectionError):
            problem = "the worker's temporary directory has no space for the download"
            return ResourceExhausted(f"{problem}. Free space there.")
    return Unavailable(f"the connection to {_place(url)} broke. Try the download again later.")
