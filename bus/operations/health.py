"""Health probes over HTTP. Orchestrators and `bus health` request `/livez` and `/readyz`.

`/livez` shows that the event loop runs, because the event loop sends the answer. `/readyz` shows
that every consumer is registered at the broker now. An answer is a status (200 or 503) and one
line. The line contains no data about messages, queues or addresses.

The server implements the part of HTTP/1.1 (RFC 9110, RFC 9112) that a probe needs: GET and HEAD, no
body, one request per connection. It disconnects a client that is slow or sends too much.
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
"""Function that returns None if the process is healthy. If not, it returns a short reason."""
ProbeAddress = Path | tuple[str, int]
"""Path of a Unix socket, or host and port."""

LIVE, READY = "/livez", "/readyz"
WORDS = {LIVE: "live", READY: "ready"}
MAX_HEAD_BYTES = 8192
"""Maximum size of a request's head. The head of a probe has a few hundred bytes."""
MAX_CONNECTIONS = 32
"""Maximum number of open connections. An orchestrator has one or two.

If the limit is reached, the server closes the oldest connection when a new client connects. So slow
clients cannot block a probe.
"""
CONNECTION_TIMEOUT_SECONDS = 5.0
"""Maximum duration of a connection. A probe takes milliseconds."""
SIBLING_TIMEOUT_SECONDS = 2.0
"""Maximum seconds for a child process to answer a health probe of its parent.

After this time the parent reports that the event loop of the child process is stuck.
"""
REQUEST_LINE = re.compile(rb"([A-Z]+) (/[!-~]*) HTTP/1\.([01])\r\n")
HOST = re.compile(rb"\r\nhost:", re.IGNORECASE)
VERDICT = re.compile(r"HTTP/1\.1 (200|503) .*?\r\n\r\n([ -~]*)\n?", re.DOTALL)


async def always_live() -> str | None:
    """Return None, which means live. If the event loop is stuck, this function does not run."""
    return None


@asynccontextmanager
async def serve_probes(
    at: ProbeAddress | None, *, ready: Check, live: Check = always_live
) -> AsyncIterator[None]:
    """Answer health probes while the `async with` block runs.

    Args:
        at: The address to listen on. None: do not listen.
        ready: The check for `/readyz`.
        live: The check for `/livez`.

    Raises:
        ConfigurationError: The address cannot be opened.
    """
    if at is None:
        yield
        return
    probe_server = ProbeServer({LIVE: live, READY: ready})
    server = await _start_server(at, probe_server)
    try:
        yield
    finally:
        server.close()
        await probe_server.close()


async def probe(at: ProbeAddress, probe: str, *, timeout: float) -> str | None:
    """Send a health probe. Return None if the status is 200. If not, return the reason.

    Args:
        at: The address of the process.
        probe: The path of the probe, `LIVE` or `READY`.
        timeout: Maximum seconds to wait for the answer.

    Raises:
        Unavailable: No process answers at this address, or the process does not serve this probe.
        DeadlineExceeded: The process accepts the connection, but does not answer within
            `timeout` seconds.
    """
    try:
        async with asyncio.timeout(timeout):
            answer = await _request(at, probe)
    except TimeoutError as error:
        raise DeadlineExceeded(
            f"{_format_address(at)} does not answer within {timeout:g} s"
        ) from error
    except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError) as error:
        raise Unavailable(f"no process answers health probes on {_format_address(at)}") from error
    verdict = VERDICT.fullmatch(answer.decode("ascii", errors="replace"))
    if verdict is None:
        raise Unavailable(f"the server on {_format_address(at)} does not serve {probe}")
    return None if verdict[1] == "200" else verdict[2]


def aggregate(addresses: Sequence[ProbeAddress]) -> Mapping[str, Check]:
    """Return the combined checks of several processes, as arguments of `serve_probes`.

    The check `ready` fails if a process is not ready. The check `live` fails if a process is stuck.
    A process that does not listen does not count as stuck, because this process is starting or
    stopping. The parent process supervises it.
    """

    async def ready() -> str | None:
        verdicts = await asyncio.gather(
            *(probe(address, READY, timeout=SIBLING_TIMEOUT_SECONDS) for address in addresses),
            return_exceptions=True,
        )
        not_ready = sum(verdict is not None for verdict in verdicts)
        return f"{not_ready} of {len(addresses)} processes" if not_ready else None

    async def live() -> str | None:
        verdicts = await asyncio.gather(
            *(probe(address, LIVE, timeout=SIBLING_TIMEOUT_SECONDS) for address in addresses),
            return_exceptions=True,
        )
        stuck = sum(isinstance(verdict, str | DeadlineExceeded) for verdict in verdicts)
        return f"{stuck} of {len(addresses)} processes" if stuck else None

    return {"ready": ready, "live": live}


class ProbeServer:
    """The open connections of a server for probes."""

    def __init__(self, checks: Mapping[str, Check]) -> None:
        self._checks = checks
        self._open: dict[asyncio.Task[None], asyncio.StreamWriter] = {}
        """The open connections. The oldest connection is first."""

    def start(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Accept a connection."""
        if len(self._open) >= MAX_CONNECTIONS:
            oldest = next(iter(self._open))
            _disconnect(oldest, self._open.pop(oldest))
        task = asyncio.create_task(self._handle(reader, writer))
        self._open[task] = writer
        task.add_done_callback(lambda _: self._open.pop(task, None))

    async def close(self) -> None:
        """Close all open connections."""
        connections = dict(self._open)
        for task, writer in connections.items():
            _disconnect(task, writer)
        await asyncio.gather(*connections, return_exceptions=True)

    async def _handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            with suppress(TimeoutError, OSError, asyncio.IncompleteReadError):
                async with asyncio.timeout(CONNECTION_TIMEOUT_SECONDS):
                    writer.write(await self._answer(reader))
                    writer.write_eof()
                    # Read the rest of the request. If the server closed a connection with unread
                    # data, TCP would reset the connection, and the client could lose the answer.
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


def _disconnect(task: "asyncio.Task[None]", writer: asyncio.StreamWriter) -> None:
    """Cancel the task of a connection, and close the connection.

    If the task is cancelled before the task starts, the task itself cannot close the connection.
    """
    task.cancel()
    writer.transport.abort()


def _response(
    status: HTTPStatus, text: str | None = None, *, headers: str = "", body: bool = True
) -> bytes:
    content = f"{text or status.phrase}\n"
    head = (
        f"HTTP/1.1 {status.value} {status.phrase}\r\n"
        f"date: {formatdate(usegmt=True)}\r\n"
        f"{headers}"
        "cache-control: no-store\r\n"
        "content-type: text/plain; charset=utf-8\r\n"
        f"content-length: {len(content)}\r\n"
        "connection: close\r\n\r\n"
    )
    return (head + (content if body else "")).encode("ascii")


async def _start_server(at: ProbeAddress, probe_server: ProbeServer) -> asyncio.Server:
    try:
        if isinstance(at, Path):
            return await asyncio.start_unix_server(probe_server.start, at, limit=MAX_HEAD_BYTES)
        return await asyncio.start_server(probe_server.start, *at, limit=MAX_HEAD_BYTES)
    except OSError as error:
        why = error.strerror or type(error).__name__
        raise ConfigurationError(
            f"health probes cannot be answered on {_format_address(at)} ({why}). "
            "Set BUS_HEALTH_PORT to a free port."
        ) from error


async def _request(at: ProbeAddress, probe: str) -> bytes:
    opened = (
        asyncio.open_unix_connection(at) if isinstance(at, Path) else asyncio.open_connection(*at)
    )
    reader, writer = await opened
    try:
        writer.write(f"GET {probe} HTTP/1.1\r\nhost: localhost\r\n\r\n".encode("ascii"))
        return await reader.readuntil(b"\r\n\r\n") + await reader.read(MAX_HEAD_BYTES)
    finally:
        writer.close()


def _format_address(at: ProbeAddress) -> str:
    return str(at) if isinstance(at, Path) else f"{at[0]}:{at[1]}"
