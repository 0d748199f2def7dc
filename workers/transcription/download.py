"""Download of recordings by http(s) into an unnamed temporary file.

A recording is never held in memory, and a download stops at the size limit. The file has no name.
Therefore the system removes a patient's recording when this process ends, even by kill -9.
"""

import asyncio
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from contextlib import asynccontextmanager
from typing import BinaryIO, Self

import httpx

from bus import (
    BusError,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    PermissionDenied,
    ResourceExhausted,
    Unavailable,
)
from workers.transcription.limits import check_size
from workers.transcription.settings import TranscriptionSettings

__all__ = ["Downloads"]

MOST_REDIRECTS = 5
"""Maximum number of redirects.

An object store may redirect from its entry point to a region, and from there to a signed URL. The
other redirects are a reserve.
"""
NOW_NOT = {408, 425, 429}
"""Statuses below 500 that mean "later" (RFC 9110, 6585, 8470)."""


class Downloads:
    """Downloader of recordings."""

    def __init__(self, client: httpx.AsyncClient, *, max_bytes: int, timeout: float) -> None:
        self._client = client
        self._max_bytes = max_bytes
        self._timeout = timeout

    @classmethod
    @asynccontextmanager
    async def opened(cls, settings: TranscriptionSettings) -> AsyncIterator[Self]:
        """Open a connection pool, and close it when the block ends."""
        async with httpx.AsyncClient(
            timeout=httpx.Timeout(settings.fetch_timeout, connect=settings.connect_timeout),
            follow_redirects=True,
            max_redirects=MOST_REDIRECTS,
            # Request an uncompressed body: the size of a compressed body is unknown in advance.
            headers={"Accept": "audio/wav, */*;q=0.1", "Accept-Encoding": "identity"},
            # Do not read ~/.netrc: httpx would send its passwords to any host that a job names.
            trust_env=False,
            proxy=settings.proxy,
            event_hooks={"request": [_only(settings.hosts)]} if settings.hosts else None,
        ) as client:
            yield cls(client, max_bytes=settings.max_bytes, timeout=settings.fetch_timeout)

    async def fetch(self, url: str) -> BinaryIO:
        """Download a recording, and return it as an open file at its beginning.

        Raise `Unavailable` or `ResourceExhausted` if a later attempt may succeed. Raise
        `OutOfRange` if the recording is too large, and `NotFound` or `PermissionDenied` if the
        server reports this. Raise `InvalidArgument` or `FailedPrecondition` if a later attempt
        cannot succeed.
        """
        file = tempfile.TemporaryFile()  # noqa: SIM115 - the caller closes it
        try:
            async with asyncio.timeout(self._timeout):
                await self._into(file, url)
            file.seek(0)
        except BaseException as error:
            file.close()
            if isinstance(error, OSError | httpx.HTTPError | httpx.InvalidURL):
                raise _error(error, url) from error
            raise
        return file

    async def _into(self, file: BinaryIO, url: str) -> None:
        async with self._client.stream("GET", url) as response:
            _check(response, url)
            if "content-length" in response.headers:
                check_size(int(response.headers["content-length"]), self._max_bytes)
            # Read the raw body. It is not compressed, because `_check` refuses a compressed body.
            async for chunk in response.aiter_raw():
                file.write(chunk)
                check_size(response.num_bytes_downloaded, self._max_bytes)


def _only(hosts: Collection[str]) -> Callable[[httpx.Request], Awaitable[None]]:
    """Return a hook that refuses each request, and each redirect, to a host not in `hosts`."""

    async def check(request: httpx.Request) -> None:
        if request.url.host not in hosts:
            raise PermissionDenied("the recording's host is not in TRANSCRIPTION_HOSTS. Add it.")

    return check


def _place(url: str) -> str:
    """Return scheme, host and port of a URL for an error.

    Path, query and user name are left out, because they may identify a patient.
    """
    parsed = httpx.URL(url)
    return f"{parsed.scheme}://{parsed.netloc.decode('ascii')}"


def _check(response: httpx.Response, url: str) -> None:
    if response.is_success:
        if response.headers.get("content-encoding", "identity") != "identity":
            problem = f"{_place(url)} compresses the recording despite Accept-Encoding"
            raise FailedPrecondition(f"{problem}. Serve it uncompressed.")
        return
    status = response.status_code
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
        case httpx.InvalidURL() | httpx.UnsupportedProtocol():
            return InvalidArgument("audio_url is not a valid URL. Write it as http(s)://host/path.")
        case httpx.TooManyRedirects():
            problem = f"{_place(url)} redirects more than {MOST_REDIRECTS} times"
            return FailedPrecondition(f"{problem}. Send the final URL.")
        case httpx.ConnectError() | httpx.ConnectTimeout() | httpx.ProxyError():
            return Unavailable(f"{_place(url)} cannot be reached. Check host, port and network.")
        case TimeoutError() | httpx.TimeoutException():
            problem = f"{_place(url)} is too slow"
            return Unavailable(f"{problem}. Try again later, or raise TRANSCRIPTION_FETCH_TIMEOUT.")
        case OSError():
            problem = "the worker's temporary directory has no space for the download"
            return ResourceExhausted(f"{problem}. Free space there.")
    return Unavailable(f"the connection to {_place(url)} broke. Try the download again later.")
