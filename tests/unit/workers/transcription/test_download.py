"""Downloads of recordings by HTTP.

Their size and time are limited, and each error is one line without a patient's name.
"""

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import cache

import pytest

from bus.errors import (
    BusError,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    OutOfRange,
    PermissionDenied,
    Unavailable,
)
from workers.transcription.download import Downloads
from workers.transcription.settings import TranscriptionSettings

PATIENT = "Jane-Doe"
Answer = Callable[[str, asyncio.StreamWriter], Awaitable[None]]


@pytest.fixture(autouse=True)
def read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Read the certificate authorities once, because that takes longer than the tests themselves.

    No connection of these tests is encrypted.
    """
    monkeypatch.setattr(ssl, "create_default_context", CONTEXT)


CONTEXT = cache(ssl.create_default_context)


@asynccontextmanager
async def server(answer: Answer) -> AsyncIterator[str]:
    """Serve HTTP with `answer(path, writer)` as every answer, and yield a URL of the server.

    The URL has a patient's name in its path and query.
    """

    writers: list[asyncio.StreamWriter] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        request = await reader.readuntil(b"\r\n\r\n")
        try:
            await answer(request.split()[1].decode(), writer)
            await writer.drain()
        except ConnectionError:
            pass
        writer.close()

    listening = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with listening:
        try:
            port = listening.sockets[0].getsockname()[1]
            yield f"http://127.0.0.1:{port}/{PATIENT}.wav?name={PATIENT}"
        finally:
            for writer in writers:
                writer.transport.abort()  # no connection may stay open after the test


def says(status: str, *headers: str, body: bytes = b"") -> Answer:
    """Return a function that always writes the same answer."""

    async def answer(path: str, writer: asyncio.StreamWriter) -> None:
        writer.write(
            "\r\n".join([f"HTTP/1.1 {status}", *headers, "Connection: close", "", ""]).encode()
            + body
        )

    return answer


async def fetch(url: str, **settings: object) -> bytes:
    chosen = TranscriptionSettings(**{"max_bytes": 1000, **settings})  # type: ignore[arg-type]
    async with Downloads.opened(chosen) as downloads:
        with await downloads.fetch(url) as file:
            return file.read()


async def fault(url: str, **settings: object) -> BusError:
    with pytest.raises(BusError) as raised:
        await fetch(url, **settings)
    assert PATIENT not in str(raised.value)
    assert "\n" not in str(raised.value)
    return raised.value


async def test_a_recording_is_fetched() -> None:
    async with server(says("200 OK", "Content-Length: 5", body=b"sound")) as url:
        assert await fetch(url) == b"sound"


async def test_a_recording_of_unknown_length_is_fetched() -> None:
    async with server(
        says("200 OK", "Transfer-Encoding: chunked", body=b"5\r\nsound\r\n0\r\n\r\n")
    ) as url:
        assert await fetch(url) == b"sound"


async def test_what_claims_to_be_over_the_limit_is_not_fetched() -> None:
    async with server(says("200 OK", "Content-Length: 1001")) as url:
        assert isinstance(await fault(url), OutOfRange)


async def test_what_is_over_the_limit_without_saying_so_is_stopped() -> None:
    async def endless(path: str, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        while True:
            writer.write(bytes(1000))
            await writer.drain()

    async with server(endless) as url:
        assert isinstance(await fault(url), OutOfRange)


async def test_a_compressed_body_is_refused() -> None:
    async with server(
        says("200 OK", "Content-Encoding: gzip", "Content-Length: 5", body=b"bombs")
    ) as url:
        assert isinstance(await fault(url), FailedPrecondition)


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        ("400 Bad Request", FailedPrecondition),
        ("401 Unauthorized", PermissionDenied),
        ("403 Forbidden", PermissionDenied),
        ("404 Not Found", NotFound),
        ("410 Gone", NotFound),
        ("429 Too Many Requests", Unavailable),
        ("500 Internal Server Error", Unavailable),
        ("503 Service Unavailable", Unavailable),
    ],
)
async def test_each_status_has_its_error(status: str, expected: type[BusError]) -> None:
    async with server(says(status, "Content-Length: 0")) as url:
        error = await fault(url)
    assert type(error) is expected
    assert f"HTTP {status[:3]}" in str(error)


async def test_a_redirect_is_followed() -> None:
    async def answer(path: str, writer: asyncio.StreamWriter) -> None:
        there = path == "/there"
        await (
            says("200 OK", "Content-Length: 5", body=b"sound")
            if there
            else says("302 Found", "Location: /there")
        )(path, writer)

    async with server(answer) as url:
        assert await fetch(url) == b"sound"


async def test_a_circle_of_redirects_ends() -> None:
    async with server(says("302 Found", f"Location: /{PATIENT}")) as url:
        assert isinstance(await fault(url), FailedPrecondition)


async def test_a_redirect_to_a_file_is_not_followed() -> None:
    async with server(says("302 Found", f"Location: file:///etc/{PATIENT}")) as url:
        assert isinstance(await fault(url), InvalidArgument)


async def test_only_listed_hosts_are_asked_even_by_a_redirect() -> None:
    async with server(says("302 Found", "Location: http://localhost:1/")) as url:
        assert isinstance(await fault(url, hosts=frozenset({"127.0.0.1"})), PermissionDenied)
        assert isinstance(await fault(url, hosts=frozenset({"example.org"})), PermissionDenied)


async def test_nobody_listening_is_unavailable_and_named() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        error = await fault(f"http://user:{PATIENT}@127.0.0.1:{port}/{PATIENT}")
    assert isinstance(error, Unavailable)
    assert f"http://127.0.0.1:{port} cannot be reached" in str(error)


async def test_a_host_without_an_address_is_unavailable() -> None:
    assert isinstance(await fault(f"http://nowhere.invalid/{PATIENT}"), Unavailable)


async def test_a_body_that_breaks_off_is_unavailable() -> None:
    async with server(says("200 OK", "Content-Length: 100", body=b"half")) as url:
        assert isinstance(await fault(url), Unavailable)


async def test_a_server_that_never_answers_is_given_up() -> None:
    stop = asyncio.Event()

    async def silent(path: str, writer: asyncio.StreamWriter) -> None:
        await stop.wait()

    async with server(silent) as url:
        assert isinstance(await fault(url, fetch_timeout=0.05), Unavailable)
        stop.set()
