"""A small HTTP/1.1 server for health probes and metrics. h11 parses the requests.

A page answers GET and HEAD. Each connection has one request, and each answer closes it. So bytes
after the head of a request are never parsed: a body, or a second request, is read and dropped. A
request that two parsers could read in two ways (RFC 9112, section 11.2) is refused.

The memory of a connection is bounded: the head has a limit, and an answer is written in pieces. A
slow client is disconnected. If there are too many clients, the server disconnects those without a
complete request, or with their answer. So no client can keep a probe out.
"""

import asyncio
import logging
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from email.utils import formatdate
from http import HTTPStatus
from pathlib import Path
from urllib.parse import unquote

import h11

from bus.messaging.failure_location import failure_facts
from bus.messaging.labels import failure_label
from bus.operations.http_address import HttpAddress

__all__ = ["Page", "Response", "serve_http", "text_response"]

log = logging.getLogger("bus.health")

MAX_HEAD_BYTES = 8192
"""Maximum size of a request's head. The head of a probe has a few hundred bytes."""
MAX_DROPPED_BYTES = 16 * 1024 * 1024
"""Maximum number of bytes that are read and dropped after the head of a request."""
MAX_CONNECTIONS = 32
"""Maximum number of connections with a complete request. An orchestrator has one or two.

If the limit is reached, the server closes the oldest connection with its answer. If there is none,
it closes the oldest connection that has waited for `PROTECTED_SECONDS`, or refuses the request.
"""
MAX_WAITING = 256
"""Maximum number of connections without a complete request.

If the limit is reached, the server closes the oldest of these. The server reads the request of a
probe long before so many further clients have connected.
"""
PROTECTED_SECONDS = 1.0
"""Seconds in which no further client can end a connection with a complete request."""
CONNECTION_TIMEOUT_SECONDS = 5.0
"""Maximum seconds until the head of a request has arrived. A probe takes milliseconds."""
ANSWER_TIMEOUT_SECONDS = 10.0
"""Maximum seconds to create an answer, and to send it. Prometheus waits for 10 s as well."""
CHUNK_BYTES = 64 * 1024
"""Number of bytes of an answer that are written before the client has to read them."""
HOST = re.compile(rb"(?:[A-Za-z0-9._~!$&'()*+,;=%-]*|\[[0-9A-Fa-fv.:]+\])(?::[0-9]*)?")
"""Pattern of the field `Host`: `uri-host [ ":" port ]` (RFC 9110, section 7.2)."""
METHOD = re.compile(rb"[A-Z]+")
TEXT = "text/plain; charset=utf-8"


@dataclass(frozen=True, slots=True, kw_only=True)
class Response:
    """The answer of a page."""

    status: HTTPStatus = HTTPStatus.OK
    content: bytes
    content_type: str = TEXT


Page = Callable[[str], Awaitable[Response]]
"""Function that gets the request's field `Accept`, or an empty text, and returns the answer."""


def text_response(status: HTTPStatus, text: str | None = None) -> Response:
    """Return an answer with one line of text. By default the line is the name of the status."""
    return Response(status=status, content=f"{text or status.phrase}\n".encode())


@asynccontextmanager
async def serve_http(at: HttpAddress, pages: Mapping[str, Page]) -> AsyncIterator[None]:
    """Serve the pages while the `async with` block runs.

    Args:
        at: The address to listen on.
        pages: The pages, by their paths.

    Raises:
        OSError: The address cannot be opened.
    """
    connections = Connections(pages)
    if isinstance(at, Path):
        server = await asyncio.start_unix_server(connections.start, at)
    else:
        server = await asyncio.start_server(connections.start, *at)
    try:
        yield
    finally:
        server.close()
        await connections.close()


@dataclass(eq=False, slots=True)
class Client:
    """One open connection."""

    writer: asyncio.StreamWriter
    task: "asyncio.Task[None] | None" = None
    asked_at: float = 0.0
    """Time at which the request was complete."""
    has_answer: bool = False
    """True if only the client delays the end of the connection."""


class Connections:
    """The open connections of a server."""

    def __init__(self, pages: Mapping[str, Page]) -> None:
        self._pages = pages
        self._waiting: dict[Client, None] = {}
        """The connections without a complete request. The oldest connection is first."""
        self._asked: dict[Client, None] = {}
        """The connections with a complete request. The oldest request is first."""

    def start(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Accept a connection."""
        if len(self._waiting) >= MAX_WAITING:
            self._end(next(iter(self._waiting)))
        client = Client(writer)
        self._waiting[client] = None
        client.task = asyncio.create_task(self._handle(reader, client))
        client.task.add_done_callback(lambda _: self._forget(client))

    def _forget(self, client: "Client") -> None:
        self._waiting.pop(client, None)
        self._asked.pop(client, None)

    def _end(self, client: "Client") -> None:
        """Close a connection, and cancel its task.

        If the task is cancelled before the task starts, the task itself cannot close the
        connection.
        """
        self._forget(client)
        if client.task is not None:
            client.task.cancel()
        client.writer.transport.abort()

    def _has_room(self, client: "Client") -> bool:
        """Return True if a client with a complete request gets an answer."""
        now = asyncio.get_running_loop().time()
        if len(self._asked) >= MAX_CONNECTIONS:
            answered = (each for each in self._asked if each.has_answer)
            oldest = next(answered, next(iter(self._asked)))
            if not oldest.has_answer and now - oldest.asked_at < PROTECTED_SECONDS:
                return False
            self._end(oldest)
        self._waiting.pop(client, None)
        self._asked[client], client.asked_at = None, now
        return True

    async def close(self) -> None:
        """Close all open connections."""
        tasks = []
        for client in (*self._waiting, *self._asked):
            self._end(client)
            if client.task is not None:
                tasks.append(client.task)
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _handle(self, reader: asyncio.StreamReader, client: "Client") -> None:
        connection, loop = h11.Connection(h11.SERVER), asyncio.get_running_loop()
        writer = client.writer
        try:
            # A cancelled task would keep its answer until the next garbage collection, because the
            # error, the frames and the timeout refer to each other. So end without the error.
            with suppress(TimeoutError, OSError, asyncio.CancelledError):
                async with asyncio.timeout(CONNECTION_TIMEOUT_SECONDS) as limit:
                    request = await _read_request(connection, reader)
                    if request is None:
                        return
                    limit.reschedule(loop.time() + ANSWER_TIMEOUT_SECONDS)
                    response, has_body = await self._respond(request, client)
                    client.has_answer = True
                    await _send(connection, writer, response, has_body=has_body)
                    writer.write_eof()
                    limit.reschedule(loop.time() + CONNECTION_TIMEOUT_SECONDS)
                    await _drop_rest(reader)
        finally:
            writer.transport.abort()

    async def _respond(
        self, request: h11.Request | HTTPStatus, client: "Client"
    ) -> tuple[Response, bool]:
        """Return the answer to a client, and True if the answer has a body."""
        if not self._has_room(client):
            return text_response(HTTPStatus.SERVICE_UNAVAILABLE), True
        if isinstance(request, HTTPStatus):
            return text_response(request), True
        return await self._answer(request), request.method != b"HEAD"

    async def _answer(self, request: h11.Request) -> Response:
        if request.method not in {b"GET", b"HEAD"}:
            return text_response(HTTPStatus.METHOD_NOT_ALLOWED)
        path = unquote(request.target.partition(b"?")[0].decode("ascii"))
        page = self._pages.get(path)
        if page is None:
            return text_response(HTTPStatus.NOT_FOUND)
        accept = ", ".join(
            value.decode("latin-1") for name, value in request.headers if name == b"accept"
        )
        try:
            return await page(accept)
        except Exception as error:  # noqa: BLE001 - an error of a page must not end the server
            # The text of the error is not logged, because it can be confidential.
            facts = failure_facts(error)
            label = failure_label(facts)
            log.error(  # noqa: TRY400 - a traceback could show confidential values
                "%s: the page failed: %s", path, label, extra=facts
            )
            return text_response(HTTPStatus.INTERNAL_SERVER_ERROR)


async def _read_request(
    connection: h11.Connection, reader: asyncio.StreamReader
) -> h11.Request | HTTPStatus | None:
    """Return the head of a request, the status of a refusal, or None if the client has ended."""
    received = 0
    try:
        while (event := connection.next_event()) is h11.NEED_DATA:
            if received >= MAX_HEAD_BYTES:
                return HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
            data = await reader.read(MAX_HEAD_BYTES - received)
            if not data:
                return None
            received += len(data)
            connection.receive_data(data)
    except h11.RemoteProtocolError:
        return HTTPStatus.BAD_REQUEST
    if isinstance(event, h11.Request) and _is_valid(event):
        return event
    return HTTPStatus.BAD_REQUEST


def _is_valid(request: h11.Request) -> bool:
    """Return True if the head follows those rules of HTTP that h11 leaves to the server.

    The absolute form of a target is refused, because this server is not a proxy.
    """
    fields = dict(request.headers)  # h11 refuses repeated fields that frame a message
    has_one_length = b"transfer-encoding" not in fields or (
        request.http_version == b"1.1" and b"content-length" not in fields
    )
    return (
        request.http_version in {b"1.0", b"1.1"}
        and METHOD.fullmatch(request.method) is not None
        and request.target.startswith(b"/")
        and HOST.fullmatch(fields.get(b"host", b"")) is not None
        and has_one_length
    )


async def _send(
    connection: h11.Connection, writer: asyncio.StreamWriter, response: Response, *, has_body: bool
) -> None:
    status = response.status
    head = h11.Response(
        status_code=status, reason=status.phrase, headers=_response_fields(response)
    )
    writer.write(connection.send(head) or b"")
    for start in range(0, len(response.content) if has_body else 0, CHUNK_BYTES):
        piece = response.content[start : start + CHUNK_BYTES]
        writer.write(connection.send(h11.Data(data=piece)) or b"")
        await writer.drain()


def _response_fields(response: Response) -> list[tuple[str, str]]:
    allow = response.status is HTTPStatus.METHOD_NOT_ALLOWED
    return [
        ("date", formatdate(usegmt=True)),
        *([("allow", "GET, HEAD")] if allow else []),
        ("cache-control", "no-store"),
        ("content-type", response.content_type),
        ("content-length", str(len(response.content))),
        ("connection", "close"),
    ]


async def _drop_rest(reader: asyncio.StreamReader) -> None:
    """Read the rest of the request until the client ends the connection.

    If the server closed a connection with unread data, TCP would reset the connection, and the
    client could lose the answer.
    """
    dropped = 0
    while dropped < MAX_DROPPED_BYTES and (data := await reader.read(CHUNK_BYTES)):
        dropped += len(data)
