"""Requests that a correct client does not send, and answers that are large."""

import asyncio
import gc
import logging
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from http import HTTPStatus
from pathlib import Path

import pytest

from bus.operations import http_server
from bus.operations.http_client import UnreadableReply, fetch
from bus.operations.http_server import Response, serve_http, text_response
from tests.polling import BRIEF, until

LARGE = b"0123456789abcdef" * 65_536
"""A content of 1 MiB."""
GET = "GET /page HTTP/1.1\r\nhost: a\r\n"


class Site:
    """A server with some pages on a socket."""

    def __init__(self, at: Path) -> None:
        self.at = at
        self.accepted: list[str] = []
        self.large_answers = 0

    async def page(self, accept: str) -> Response:
        self.accepted.append(accept)
        return text_response(HTTPStatus.OK, "a page")

    async def large(self, _: str) -> Response:
        self.large_answers += 1
        return Response(content=LARGE, content_type="application/json")

    async def broken(self, _: str) -> Response:
        raise ValueError("Eleonora Quist")

    async def slow(self, _: str) -> Response:
        await asyncio.Event().wait()
        raise AssertionError

    async def sends(self, request: str) -> bytes:
        """Send a request, and return everything that the server sends."""
        reader, writer = await asyncio.open_unix_connection(self.at)
        writer.write(request.encode("latin-1"))
        try:
            async with asyncio.timeout(20):
                return await reader.read()
        finally:
            writer.close()


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    site = Site(tmp_path / "site")
    pages = {"/page": site.page, "/large": site.large, "/broken": site.broken, "/slow": site.slow}
    async with serve_http(site.at, pages):
        yield site


AMBIGUOUS = {
    "a length beside chunks": "content-length: 3\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunks beside a length": "transfer-encoding: chunked\r\ncontent-length: 3\r\n\r\n0\r\n\r\n",
    "two lengths": "content-length: 3\r\ncontent-length: 4\r\n\r\nabcd",
    "two lengths in one field": "content-length: 3, 4\r\n\r\nabcd",
    "a length with a sign": "content-length: +3\r\n\r\nabc",
    "a negative length": "content-length: -1\r\n\r\n",
    "a length in hexadecimal": "content-length: 0x3\r\n\r\nabc",
    "a length with too many digits": f"content-length: {'9' * 400}\r\n\r\n",
    "another coding": "transfer-encoding: xchunked\r\n\r\n0\r\n\r\n",
    "two codings": "transfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "two fields of a coding": "transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n\r\n",
    "a space before the colon": "content-length : 3\r\n\r\nabc",
    "a line without a colon": "content-length\r\n\r\n",
    "a line that begins with a colon": ": 3\r\n\r\n",
    "a carriage return in a value": "x: a\rcontent-length: 3\r\n\r\n",
    "a zero byte in a value": "x: a\0b\r\n\r\n",
    "a second host": "host: b\r\n\r\n",
}


@pytest.mark.parametrize("case", AMBIGUOUS)
async def test_a_request_that_parsers_could_read_differently_is_refused(
    site: Site, case: str
) -> None:
    answer = await site.sends(GET + AMBIGUOUS[case])

    assert answer.startswith(b"HTTP/1.1 400 ")
    assert answer.count(b"HTTP/1.1 ") == 1
    assert site.accepted == []


@pytest.mark.parametrize("host", ["a b", "a/b", "user@a", "a:80:80", "a:b", "[::1", "a\\b", "\xe9"])
async def test_a_host_that_is_not_a_name_with_a_port_is_refused(site: Site, host: str) -> None:
    answer = await site.sends(f"GET /page HTTP/1.1\r\nhost: {host}\r\n\r\n")

    assert answer.startswith(b"HTTP/1.1 400 ")


@pytest.mark.parametrize("host", ["a", "a.example:8080", "127.0.0.1:1", "[::1]:8080", "a:", ""])
async def test_a_host_is_a_name_or_an_address(site: Site, host: str) -> None:
    answer = await site.sends(f"GET /page HTTP/1.1\r\nhost: {host}\r\n\r\n")

    assert answer.startswith(b"HTTP/1.1 200 ")


async def test_chunks_of_http_1_0_are_refused(site: Site) -> None:
    request = "GET /page HTTP/1.0\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n"

    assert (await site.sends(request)).startswith(b"HTTP/1.1 400 ")


SECOND = "GET /page HTTP/1.1\r\nhost: a\r\n\r\n"
WITH_BODY = {
    "a body": "content-length: 3\r\n\r\nabc",
    "a body that is shorter than its length": "content-length: 3000\r\n\r\nabc",
    "a body that is longer than its length": f"content-length: 3\r\n\r\nabc{SECOND}",
    "chunks": f"transfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n{SECOND}",
    "chunks that are not chunks": f"transfer-encoding: chunked\r\n\r\n{SECOND}",
    "the expectation of an interim answer": "expect: 100-continue\r\ncontent-length: 3\r\n\r\n",
    "a second request": f"\r\n{SECOND}",
    "a request for a reused connection": f"connection: keep-alive\r\n\r\n{SECOND}",
}


@pytest.mark.parametrize("case", WITH_BODY)
async def test_bytes_after_the_head_are_dropped_and_the_connection_is_closed(
    site: Site, case: str
) -> None:
    reader, writer = await asyncio.open_unix_connection(site.at)
    writer.write((GET + WITH_BODY[case]).encode())
    async with asyncio.timeout(20):
        answer = await reader.read()
    writer.close()

    assert answer.startswith(b"HTTP/1.1 200 ")
    assert b"connection: close\r\n" in answer.lower()
    assert answer.count(b"HTTP/1.1 ") == 1
    assert site.accepted == [""]


async def test_a_client_cannot_send_bytes_without_end(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_server, "MAX_DROPPED_BYTES", 1_000_000)
    with socket.socket(socket.AF_UNIX) as client:
        client.setblocking(False)
        client.connect(str(site.at))
        client.send(f"{GET}\r\n".encode())

        await until(lambda: is_cut(client, 65_536), "the end of the connection", poll=BRIEF)


async def test_a_folded_field_is_one_field(site: Site) -> None:
    answer = await site.sends(f"{GET}accept: text/plain,\r\n  */*\r\n\r\n")

    assert answer.startswith(b"HTTP/1.1 200 ")
    assert site.accepted == ["text/plain, */*"]


async def test_repeated_accept_fields_are_one_list(site: Site) -> None:
    await site.sends(f"{GET}accept: text/plain\r\nAccept: */*\r\n\r\n")

    assert site.accepted == ["text/plain, */*"]


@pytest.mark.parametrize(
    ("target", "status"),
    [
        ("/p%61ge", 200),
        ("/page?x=%00", 200),
        ("/%2Fpage", 404),
        ("/page%00", 404),
        ("/%70age/%2e%2e/page", 404),
        ("/%zzpage", 404),
        ("/page#fragment", 404),
        ("//page", 404),
        ("*", 400),
        ("a:80", 400),
    ],
)
async def test_a_path_is_compared_after_it_is_decoded_once(
    site: Site, target: str, status: int
) -> None:
    answer = await site.sends(f"GET {target} HTTP/1.1\r\nhost: a\r\n\r\n")

    assert answer.startswith(f"HTTP/1.1 {status} ".encode())


async def test_a_large_answer_arrives_whole(site: Site) -> None:
    reply = await fetch(site.at, "/large", max_bytes=len(LARGE))

    assert (reply.status, reply.content) == (200, LARGE)


async def test_the_head_of_a_large_page_has_its_length_and_no_content(site: Site) -> None:
    answer = await site.sends("HEAD /large HTTP/1.0\r\n\r\n")

    assert f"\r\ncontent-length: {len(LARGE)}\r\n".encode() in answer
    assert answer.endswith(b"\r\n\r\n")


async def test_a_client_that_does_not_read_a_large_answer_is_disconnected(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_server, "ANSWER_TIMEOUT_SECONDS", 0.1)
    with socket.socket(socket.AF_UNIX) as client:
        client.setblocking(False)
        client.connect(str(site.at))
        client.send(b"GET /large HTTP/1.1\r\nhost: a\r\n\r\n")

        await until(lambda: is_cut(client), "the end of the connection")


def is_cut(client: socket.socket, count: int = 1) -> bool:
    """Send some bytes, and return True if the server has closed the connection."""
    try:
        client.send(b"x" * count)
    except BlockingIOError:
        return False
    except ConnectionError:
        return True
    return False


async def test_the_answer_of_a_client_that_was_disconnected_is_freed_at_once(site: Site) -> None:
    """A garbage collection can be minutes away, and each answer can have megabytes."""
    clients = [socket.socket(socket.AF_UNIX) for _ in range(2 * http_server.MAX_CONNECTIONS)]
    gc.collect()
    gc.disable()
    try:
        for client in clients:
            client.setblocking(False)
            client.connect(str(site.at))
            client.send(b"GET /large HTTP/1.1\r\nhost: a\r\n\r\n")
            await until(lambda: site.large_answers, "the request", poll=0)
            site.large_answers -= 1
        await until(
            lambda: (
                sum(isinstance(each, Response) for each in gc.get_objects())
                <= http_server.MAX_CONNECTIONS
            ),
            "the end of the answers",
            5,
        )
    finally:
        gc.enable()
        for client in clients:
            client.close()


async def test_a_page_that_takes_too_long_has_no_answer(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_server, "ANSWER_TIMEOUT_SECONDS", 0.05)

    assert await site.sends("GET /slow HTTP/1.1\r\nhost: a\r\n\r\n") == b""


async def test_a_page_that_fails_is_an_error_of_the_server_and_a_line_without_values(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.ERROR, "bus.health"):
        answer = await site.sends("GET /broken HTTP/1.1\r\nhost: a\r\n\r\n")

    assert answer.startswith(b"HTTP/1.1 500 ")
    assert "/broken: the page failed: ValueError at " in caplog.text
    assert "Eleonora" not in caplog.text
    assert b"Eleonora" not in answer


REPLIES = {
    "another protocol": b"220 mail.example ESMTP\r\n\r\n",
    "half a head": b"HTTP/1.1 200 OK\r\ncontent-",
    "half a content": b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nabc",
    "half of the chunks": b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n",
    "a large head": b"HTTP/1.1 200 OK\r\nx: " + b"y" * 500_000,
    "a large content": b"HTTP/1.1 200 OK\r\n\r\n" + b"y" * 500_000,
    "two lengths": b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab",
}


@asynccontextmanager
async def server_of(reply: bytes, at: Path) -> AsyncIterator[None]:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(reply)
        writer.close()

    async with await asyncio.start_unix_server(answer, at):
        yield


@pytest.mark.parametrize("case", REPLIES)
async def test_a_reply_that_is_not_complete_is_not_used(tmp_path: Path, case: str) -> None:
    async with server_of(REPLIES[case], tmp_path / "site"):
        with pytest.raises(UnreadableReply):
            await fetch(tmp_path / "site", "/page", max_bytes=100_000)


@pytest.mark.parametrize(
    "reply",
    [
        b"HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nabc",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
        b"HTTP/1.0 200 OK\r\n\r\nabc",
    ],
    ids=["an interim reply first", "chunks", "until the end"],
)
async def test_every_framing_of_a_reply_is_read(tmp_path: Path, reply: bytes) -> None:
    async with server_of(reply, tmp_path / "site"):
        received = await fetch(tmp_path / "site", "/page", max_bytes=100)
    assert (received.status, received.content) == (200, b"abc")
