"""Health probes over HTTP: `/livez` and `/readyz`, for orchestrators and for `bus health`.

Live: the event loop turns, since it is what answers. Ready: every consumer is registered at the broker now. An answer is
a status (200 or 503) and one line; nothing about messages, queues or addresses is in it. HTTP/1.1 as of RFC 9110 and
RFC 9112, as far as a probe needs it: GET and HEAD, no body, one request a connection. Whoever is slow, or sends too much, is cut off.
"""

import asyncio
import logging
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from email.utils import formatdate
from http import HTTPStatus
from pathlib import Path

from bus.errors import ConfigurationError, DeadlineExceeded, Unavailable

__all__ = [
    "LIVE",
    "READY",
    "Check",
    "ProbeAddress",
    "aggregate",
    "always_live",
    "probe",
    "serve_probes",
]

log = logging.getLogger("bus.health")

Check = Callable[[], Awaitable[str | None]]
"""None where all is well, else why not, in a few words."""
ProbeAddress = Path | tuple[str, int]
"""A Unix socket, or host and port."""

LIVE, READY = "/livez", "/readyz"
WORDS = {LIVE: "live", READY: "ready"}
MAX_HEAD_BYTES = 8192
"""Bytes of a request's head; a probe's has a few hundred."""
MAX_CONNECTIONS = 32
"""At a time; an orchestrator has one or two. For one more the oldest is cut off: slow clients keep no probe out."""
CONNECTION_TIMEOUT_SECONDS = 5.0
"""Seconds for one connection from its beginning to its end; a probe takes milliseconds."""
SIBLING_TIMEOUT_SECONDS = 2.0
"""Seconds in which a process has to tell its parent how it is; else its loop is stuck."""
REQUEST_LINE = re.compile(rb"([A-Z]+) (/[!-~]*) HTTP/1\.([01])\r\n")
HOST = re.compile(rb"\r\nhost:", re.IGNORECASE)
VERDICT = re.compile(r"HTTP/1\.1 (200|503) .*?\r\n\r\n([ -~]*)\n?", re.DOTALL)


async def always_live() -> str | None:
    """All is well: this runs."""
    return None


@asynccontextmanager
async def serve_probes(
    at: ProbeAddress | None, *, ready: Check, live: Check = always_live
) -> AsyncIterator[None]:
    """Answer at `at` inside the block; None: nowhere. `ConfigurationError` where it cannot be opened."""
    if at is None:
        yield
        return
    talks = ProbeServer({LIVE: live, READY: ready})
    server = await _listening(at, talks)
    try:
        yield
    finally:
        server.close()
        await talks.close()


async def probe(at: ProbeAddress, probe: str, *, timeout: float) -> str | None:
    """None where all is well at `at`, else the line that says why not.

    Raises `Unavailable` where nobody answers there, and `DeadlineExceeded` where whoever does is silent for `timeout` seconds.
    """
    try:
        async with asyncio.timeout(timeout):
            answer = await _asked(at, probe)
    except TimeoutError as error:
        raise DeadlineExceeded(f"{_name(at)} does not answer within {timeout:g} s") from error
    except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError) as error:
        raise Unavailable(f"nobody answers health probes on {_name(at)}") from error
    verdict = VERDICT.fullmatch(answer.decode("ascii", errors="replace"))
    if verdict is None:
        raise Unavailable(f"what answers on {_name(at)} knows no {probe}")
    return None if verdict[1] == "200" else verdict[2]


def aggregate(places: Sequence[ProbeAddress]) -> Mapping[str, Check]:
    """The checks of several processes together, as arguments of `probes`.

    Ready when all are. Live unless one is stuck: a process that does not listen is on its way, and its parent looks after it.
    """

    async def ready() -> str | None:
        verdicts = await asyncio.gather(
            *(probe(place, READY, timeout=SIBLING_TIMEOUT_SECONDS) for place in places),
            return_exceptions=True,
        )
        waiting = sum(verdict is not None for verdict in verdicts)
        return f"{waiting} of {len(places)} processes" if waiting else None

    async def live() -> str | None:
        verdicts = await asyncio.gather(
            *(probe(place, LIVE, timeout=SIBLING_TIMEOUT_SECONDS) for place in places),
            return_exceptions=True,
        )
        stuck = sum(isinstance(verdict, str | DeadlineExceeded) for verdict in verdicts)
        return f"{stuck} of {len(places)} processes" if stuck else None

    return {"ready": ready, "live": live}


class ProbeServer:
    """The connections that are open."""

    def __init__(self, checks: Mapping[str, Check]) -> None:
        self._checks = checks
        self._open: dict[
            asyncio.Task[None], asyncio.StreamWriter
        ] = {}  # in the order of their coming

    def start(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Take a connection."""
        if len(self._open) >= MAX_CONNECTIONS:
            oldest = next(iter(self._open))
            _cut_off(oldest, self._open.pop(oldest))
        talk = asyncio.create_task(self._talk(reader, writer))
        self._open[talk] = writer
        talk.add_done_callback(lambda _: self._open.pop(talk, None))

    async def close(self) -> None:
        """Cut off who is still there."""
        talks = dict(self._open)
        for talk, writer in talks.items():
            _cut_off(talk, writer)
        await asyncio.gather(*talks, return_exceptions=True)

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            with suppress(TimeoutError, OSError, asyncio.IncompleteReadError):
                async with asyncio.timeout(CONNECTION_TIMEOUT_SECONDS):
                    writer.write(await self._answer(reader))
                    writer.write_eof()
                    # To close with something unread would reset the connection, and the answer could be lost with it.
                    while await reader.read(MAX_HEAD_BYTES):
                        pass
        finally:
            writer.transport.abort()

    async def _answer(self, reader: asyncio.StreamReader) -> bytes:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
        except asyncio.LimitOverrunError:
            return _response(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
        line = REQUEST_LINE.match(head)
        if line is None or (line[3] == b"1" and not HOST.search(head)):
            return _response(HTTPStatus.BAD_REQUEST)
        if line[1] not in {b"GET", b"HEAD"}:
            return _response(HTTPStatus.METHOD_NOT_ALLOWED, headers="allow: GET, HEAD\r\n")
        probe = line[2].partition(b"?")[0].decode("ascii")
        if probe not in self._checks:
            return _response(HTTPStatus.NOT_FOUND)
        why = await self._checks[probe]()
        status, text = (
            (HTTPStatus.OK, WORDS[probe])
            if why is None
            else (HTTPStatus.SERVICE_UNAVAILABLE, f"not {WORDS[probe]}: {why}")
        )
        return _response(status, text, body=line[1] == b"GET")


def _cut_off(talk: "asyncio.Task[None]", writer: asyncio.StreamWriter) -> None:
    """The connection, too: a talk that is cancelled before its first turn never comes to close it."""
    talk.cancel()
    writer.transport.abort()


def _response(
    status: HTTPStatus, text: str | None = None, *, headers: str = "", body: bool = True
) -> bytes:
    content = f"{text or status.phrase}\n"
    head = (
        f"HTTP/1.1 {status.value} {status.phrase}\r\ndate: {formatdate(usegmt=True)}\r\n{headers}cache-control: no-store\r\n"
        f"content-type: text/plain; charset=utf-8\r\ncontent-length: {len(content)}\r\nconnection: close\r\n\r\n"
    )
    return (head + (content if body else "")).encode("ascii")


async def _listening(at: ProbeAddress, talks: ProbeServer) -> asyncio.Server:
    try:
        if isinstance(at, Path):
            return await asyncio.start_unix_server(talks.start, at, limit=MAX_HEAD_BYTES)
        return await asyncio.start_server(talks.start, *at, limit=MAX_HEAD_BYTES)
    except OSError as error:
        why = error.strerror or type(error).__name__
        raise ConfigurationError(
            f"health probes cannot be answered on {_name(at)} ({why}); set BUS_HEALTH_PORT to a free port"
        ) from error


async def _asked(at: ProbeAddress, probe: str) -> bytes:
    opened = (
        asyncio.open_unix_connection(at) if isinstance(at, Path) else asyncio.open_connection(*at)
    )
    reader, writer = await opened
    try:
        writer.write(f"GET {probe} HTTP/1.1\r\nhost: localhost\r\n\r\n".encode("ascii"))
        return await reader.readuntil(b"\r\n\r\n") + await reader.read(MAX_HEAD_BYTES)
    finally:
        writer.close()


def _name(at: ProbeAddress) -> str:
    return str(at) if isinstance(at, Path) else f"{at[0]}:{at[1]}"
