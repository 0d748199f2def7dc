"""HTTP servers on this machine, and downloads from them."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from ssl import SSLContext

import pytest

from bus.errors import BusError
from workers.transcription.download import Downloads
from workers.transcription.settings import TranscriptionSettings

PATIENT = "Jane-Doe"
Answer = Callable[[str, asyncio.StreamWriter], Awaitable[None]]
LOCAL = frozenset({"127.0.0.1"})
"""The host of the servers, to which no worker connects by default."""
ANY: frozenset[str] = frozenset()
"""The default of the setting."""


@asynccontextmanager
async def server(answer: Answer, tls: SSLContext | None = None) -> AsyncIterator[str]:
    """Serve HTTP with `answer(request, writer)` as every answer, and yield a URL of the server.

    The URL has a patient's name in its path and query.
    """

    writers: list[asyncio.StreamWriter] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        try:
            request = await reader.readuntil(b"\r\n\r\n")
            await answer(request.decode(), writer)
            await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        writer.close()

    listening = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=tls)
    async with listening:
        try:
            port = listening.sockets[0].getsockname()[1]
            scheme = "https" if tls else "http"
            yield f"{scheme}://127.0.0.1:{port}/{PATIENT}.wav?name={PATIENT}"
        finally:
            for writer in writers:
                writer.transport.abort()  # no connection may stay open after the test


def says(status: str, *headers: str, body: bytes = b"") -> Answer:
    """Return a function that always writes the same answer."""

    async def answer(request: str, writer: asyncio.StreamWriter) -> None:
        writer.write(
            "\r\n".join([f"HTTP/1.1 {status}", *headers, "Connection: close", "", ""]).encode()
            + body
        )

    return answer


def by_path(**answers: Answer) -> Answer:
    """Return a function that answers by the request's path, and redirects other paths to `/a`."""

    async def answer(request: str, writer: asyncio.StreamWriter) -> None:
        path = request.split()[1].strip("/")
        await answers.get(path, says("302 Found", "Location: /a"))(request, writer)

    return answer


SOUND = says("200 OK", "Content-Length: 5", body=b"sound")


async def fetch(url: str, **settings: object) -> bytes:
    chosen = TranscriptionSettings(**{"max_bytes": 1000, "hosts": LOCAL, **settings})  # type: ignore[arg-type]
    async with Downloads.opened(chosen) as downloads:
        return await content(downloads, url)


async def content(downloads: Downloads, url: str) -> bytes:
    with await downloads.fetch(url) as file:
        return file.read()


async def fault(url: str, **settings: object) -> BusError:
    with pytest.raises(BusError) as raised:
        await fetch(url, **settings)
    assert PATIENT not in str(raised.value)
    assert "\n" not in str(raised.value)
    return raised.value
