"""Recordings by http(s): into an unnamed temporary file, never into memory, and never more than the limit.

Unnamed, so that what a patient said is gone from the disk whenever this process is, kill -9 included.
"""

import asyncio
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from contextlib import asynccontextmanager
from typing import BinaryIO, Self

import httpx

from bus import BusError, FailedPrecondition, InvalidArgument, NotFound, PermissionDenied, ResourceExhausted, Unavailable
from workers.transcription.limits import check_size
from workers.transcription.settings import TranscriptionSettings

__all__ = ["Downloads"]

MOST_REDIRECTS = 5
"""A store's front door, its region, its signed URL, and some to spare."""
NOW_NOT = {408, 425, 429}
"""Statuses below 500 that say "later" (RFC 9110, 6585, 8470)."""


class Downloads:
    """Fetches recordings."""

    def __init__(self, client: httpx.AsyncClient, *, max_bytes: int, timeout: float) -> None:
        self._client = client
        self._max_bytes = max_bytes
        self._timeout = timeout

    @classmethod
    @asynccontextmanager
    async def opened(cls, settings: TranscriptionSettings) -> AsyncIterator[Self]:
        """With a connection pool that is closed on leaving."""
        async with httpx.AsyncClient(
            timeout=httpx.Timeout(settings.fetch_timeout, connect=settings.connect_timeout),
            follow_redirects=True,
            max_redirects=MOST_REDIRECTS,
            # What is compressed cannot be counted before it is unpacked.
            headers={"Accept": "audio/wav, */*;q=0.1", "Accept-Encoding": "identity"},
            # Else ~/.netrc would send this machine's passwords to whatever host a job names.
            trust_env=False,
            proxy=settings.proxy,
            event_hooks={"request": [_only(settings.hosts)]} if settings.hosts else None,
        ) as client:
            yield cls(client, max_bytes=settings.max_bytes, timeout=settings.fetch_timeout)

    async def fetch(self, url: str) -> BinaryIO:
        """The recording as an open file at its beginning.

        Raises `Unavailable` or `ResourceExhausted` for what may work later, `NotFound`, `PermissionDenied`, `OutOfRange` over
        the limit, and `InvalidArgument` or `FailedPrecondition` for what asking again cannot help.
        """
        file = tempfile.TemporaryFile()  # noqa: SIM115 - handed to the caller, open
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
            # Raw: a body that is compressed although nobody asked for it was refused above.
            async for chunk in response.aiter_raw():
                file.write(chunk)
                check_size(response.num_bytes_downloaded, self._max_bytes)


def _only(hosts: Collection[str]) -> Callable[[httpx.Request], Awaitable[None]]:
    """Refuses each request, a redirect's too, to any other host."""

    async def check(request: httpx.Request) -> None:
        if request.url.host not in hosts:
            raise PermissionDenied("this worker may not download from that host (TRANSCRIPTION_HOSTS)")

    return check


def _place(url: str) -> str:
    """Scheme, host and port: path, query and user name may hold a patient's."""
    parsed = httpx.URL(url)
    return f"{parsed.scheme}://{parsed.netloc.decode('ascii')}"


def _check(response: httpx.Response, url: str) -> None:
    if response.is_success:
        if response.headers.get("content-encoding", "identity") != "identity":
            raise FailedPrecondition(f"{_place(url)} sends the recording compressed although asked not to; serve it as it is")
        return
    status = response.status_code
    if status in {404, 410}:
        raise NotFound(f"{_place(url)} has no such recording (HTTP {status}); check audio_url")
    if status in {401, 403}:
        raise PermissionDenied(f"{_place(url)} refuses to give the recording (HTTP {status}); send a URL that grants access")
    if status in NOW_NOT or response.is_server_error:
        raise Unavailable(f"{_place(url)} cannot give the recording now (HTTP {status}); try again later")
    raise FailedPrecondition(f"{_place(url)} does not give the recording (HTTP {status}); open audio_url yourself to see why")


def _error(error: BaseException, url: str) -> BusError:
    match error:
        case httpx.InvalidURL() | httpx.UnsupportedProtocol():
            return InvalidArgument("audio_url is not a valid URL; write it as http(s)://host/path")
        case httpx.TooManyRedirects():
            return FailedPrecondition(f"{_place(url)} redirects more than {MOST_REDIRECTS} times; send the URL where that ends")
        case httpx.ConnectError() | httpx.ConnectTimeout() | httpx.ProxyError():
            return Unavailable(f"{_place(url)} cannot be reached; check the host, its port and the network")
        case TimeoutError() | httpx.TimeoutException():
            return Unavailable(f"{_place(url)} is too slow; try again later, or raise TRANSCRIPTION_FETCH_TIMEOUT")
        case OSError():
            return ResourceExhausted("the worker has no room for the download; make room in its temporary directory")
    return Unavailable(f"the connection to {_place(url)} broke during the download; try again later")
