"""Downloads of recordings by HTTP.

Their size and time are limited, and each error is one line without a patient's name.
"""

import asyncio
import logging
import socket
import ssl
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
from tests.unit.workers.transcription.web import (
    ANY,
    LOCAL,
    PATIENT,
    SOUND,
    by_path,
    fault,
    fetch,
    says,
    server,
)


@pytest.fixture(autouse=True)
def read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Read the certificate authorities once, because that takes longer than the tests themselves.

    No connection of these tests is encrypted.
    """
    monkeypatch.setattr(ssl, "create_default_context", CONTEXT)


CONTEXT = cache(ssl.create_default_context)


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


@pytest.mark.parametrize("coding", ["gzip", "GZIP", "br", "identity, gzip", "x-unknown"])
async def test_a_compressed_body_is_refused(coding: str) -> None:
    async with server(
        says("200 OK", f"Content-Encoding: {coding}", "Content-Length: 5", body=b"bombs")
    ) as url:
        assert isinstance(await fault(url), FailedPrecondition)


@pytest.mark.parametrize("coding", ["identity", " Identity", ""])
async def test_a_body_that_is_marked_as_uncompressed_is_fetched(coding: str) -> None:
    async with server(
        says("200 OK", f"Content-Encoding: {coding}", "Content-Length: 5", body=b"sound")
    ) as url:
        assert await fetch(url) == b"sound"


async def test_a_part_is_not_taken_as_the_whole() -> None:
    part = says("206 Partial Content", "Content-Range: bytes 0-4/50", body=b"sound")
    async with server(part) as url:
        error = await fault(url)
    assert isinstance(error, InvalidArgument)
    assert "only a part of the recording (HTTP 206)" in str(error)


async def test_a_recording_that_a_proxy_changed_is_fetched() -> None:
    async with server(says("203 Non-Authoritative", "Content-Length: 5", body=b"sound")) as url:
        assert await fetch(url) == b"sound"


async def test_a_body_that_drips_is_given_up() -> None:
    async def drips(request: str, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        while True:
            writer.write(b"x")
            await writer.drain()
            await asyncio.sleep(0.02)

    async with server(drips) as url:
        error = await fault(url, fetch_timeout=0.1)
    assert isinstance(error, Unavailable)
    assert "is too slow" in str(error)


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        ("400 Bad Request", FailedPrecondition),
        ("401 Unauthorized", PermissionDenied),
        ("403 Forbidden", PermissionDenied),
        ("404 Not Found", NotFound),
        ("410 Gone", NotFound),
        ("202 Accepted", Unavailable),
        ("204 No Content", InvalidArgument),
        ("205 Reset Content", InvalidArgument),
        ("206 Partial Content", InvalidArgument),
        ("207 Multi-Status", FailedPrecondition),
        ("226 IM Used", InvalidArgument),
        ("300 Multiple Choices", FailedPrecondition),
        ("304 Not Modified", FailedPrecondition),
        ("301 Moved Permanently", FailedPrecondition),  # without a location
        ("416 Range Not Satisfiable", FailedPrecondition),
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
    async with server(by_path(a=SOUND)) as url:
        assert await fetch(url) == b"sound"


async def test_a_circle_of_redirects_ends() -> None:
    async with server(says("302 Found", f"Location: /{PATIENT}")) as url:
        assert isinstance(await fault(url), FailedPrecondition)


@pytest.mark.parametrize(
    "location",
    [
        *["http://h:99999/", "http://h:0/", "http://h:-1/", "http://h:port/", "https://h:65536/"],
        *[
            "http:///x",
            "http:x",
            "http://[::1",
            "//[::1]x/",
            "http://a..b/",
            "http://[fe80::1%25eth0]/",
        ],
        *["file:///etc/x", "ftp://h/x", "gopher://h/x", "data:,x", "javascript:x", "ws://h/"],
        *["http://127.1/", "http://2130706433/", "http://0x7f.1/"],
        *["http://user@h/", "http://user:word@127.0.0.1/", "//user@h/"],
        *[f"http://{'a' * 64}.h/", f"/{'x' * 66_000}"],
    ],
)
async def test_a_redirect_to_an_invalid_url_is_refused_at_once(location: str) -> None:
    async with server(says("302 Found", f"Location: {location}{PATIENT}")) as url:
        error = await fault(url, max_bytes=10**6)
    assert isinstance(error, InvalidArgument)
    assert not error.retryable
    assert "redirects to an invalid URL. Send the final URL." in str(error)


async def test_the_body_of_a_redirect_is_not_read() -> None:
    async with server(
        by_path(
            a=says("307 Temporary Redirect", "Location: /b", "Content-Length: 1000", body=b"x"),
            b=says(
                "301 Moved",
                "Location: /c",
                "Content-Encoding: gzip",
                "Content-Length: 1",
                body=b"x",
            ),
            c=SOUND,
        )
    ) as url:
        assert await fetch(url, fetch_timeout=2) == b"sound"


@pytest.mark.parametrize(
    "url",
    [
        *[
            "http://h:99999/",
            "http://h:port/",
            "http://a..b/",
            "http://h%00/",
            "http://127.1/",
            "http:///",
        ],
        *[f"http://{'a' * 64}.h/", "http://[fe80::1%25eth0]/", "http://h/\ud800"],
    ],
)
async def test_an_invalid_url_is_refused_at_once(url: str) -> None:
    for hosts in (LOCAL, ANY):
        assert isinstance(await fault(f"{url}{PATIENT}", hosts=hosts), InvalidArgument)


async def test_a_user_name_is_sent_to_its_own_host_only() -> None:
    seen: list[str] = []

    async def other(request: str, writer: asyncio.StreamWriter) -> None:
        seen.append(request)
        await SOUND(request, writer)

    async with server(other) as elsewhere:

        async def first(request: str, writer: asyncio.StreamWriter) -> None:
            seen.append(request)
            await says("302 Found", f"Location: {elsewhere}")(request, writer)

        async with server(first) as url:
            assert await fetch(url.replace("//", "//user:word@")) == b"sound"
    assert ["authorization: basic" in request.lower() for request in seen] == [True, False]


async def test_a_cookie_is_neither_kept_nor_sent() -> None:
    requests: list[str] = []

    async def answer(request: str, writer: asyncio.StreamWriter) -> None:
        requests.append(request.lower())
        there = request.startswith("GET /there")
        redirect = says("302 Found", "Location: /there", "Set-Cookie: id=1")
        await (SOUND if there else redirect)(request, writer)

    async with server(answer) as url:
        assert await fetch(url) == b"sound"
    assert ["cookie" in request for request in requests] == [False, False]


async def test_no_log_has_the_path_of_a_url(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        async with server(by_path(a=SOUND)) as url:
            assert await fetch(url) == b"sound"
    assert PATIENT not in caplog.text


async def test_nobody_listening_is_unavailable_and_named() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        error = await fault(f"http://user:{PATIENT}@127.0.0.1:{port}/{PATIENT}")
    assert isinstance(error, Unavailable)
    assert f"http://127.0.0.1:{port} cannot be reached" in str(error)


async def test_a_host_without_an_address_is_unavailable() -> None:
    assert isinstance(await fault(f"http://nowhere.invalid/{PATIENT}", hosts=ANY), Unavailable)


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
