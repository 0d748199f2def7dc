"""Servers that answer downloads with a lot of work for the worker, or against HTTP."""

import asyncio
import time
from contextlib import suppress

import httpx
import pytest

from bus.errors import InvalidArgument, Unavailable
from tests.unit.workers.transcription.web import (
    ANY,
    LOCAL,
    PATIENT,
    SOUND,
    Answer,
    by_path,
    fault,
    fetch,
    says,
    server,
)
from workers.transcription.download import CHUNKS_AT_ONCE, NoCookies


async def test_the_cookies_of_a_redirect_are_not_parsed() -> None:
    cookies = ["Set-Cookie: a=b", f"Set-Cookie2: {'a,' * 45_000}"]  # quadratic: 0.5 s
    redirect = says("302 Found", "Location: /b", *cookies)
    async with server(by_path(a=redirect, b=SOUND)) as url:
        assert await fetch(url) == b"sound"
    jar = httpx.Cookies(NoCookies())
    request = httpx.Request("GET", "http://a.example/")
    before = time.process_time()
    for _ in range(10):
        lines = [("set-cookie", "a=b"), ("set-cookie2", "a," * 45_000)]
        jar.extract_cookies(httpx.Response(302, headers=lines, request=request))
    assert time.process_time() - before < 0.5
    assert not jar


async def test_other_tasks_run_between_the_chunks_of_a_body() -> None:
    chunks, turns = 12_000, 0

    async def count() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    body = b"1\r\nx\r\n" * chunks + b"0\r\n\r\n"
    async with server(says("200 OK", "Transfer-Encoding: chunked", body=body)) as url:
        counting = asyncio.create_task(count())
        assert await fetch(url, max_bytes=chunks) == b"x" * chunks
        counting.cancel()
        with suppress(asyncio.CancelledError):
            await counting
    assert turns >= chunks / CHUNKS_AT_ONCE


AMBIGUOUS = ["\\", " ", "\t", "\x00", "\x1f", "\x7f", "\x85", "\u00a0", "\u2028", "\u3000"]


@pytest.mark.parametrize("sign", [*AMBIGUOUS, "\n", "\r\n"], ids=ascii)
@pytest.mark.parametrize("form", ["http://127.0.0.1:80{}@8.8.8.8/", "http://8.8.8.8/a{}b"])
async def test_a_url_that_parsers_read_in_different_ways_is_refused(form: str, sign: str) -> None:
    for hosts in (LOCAL, ANY):
        error = await fault(form.format(sign) + PATIENT, hosts=hosts)
        assert isinstance(error, InvalidArgument)
        assert "white space, a backslash or a control character" in str(error)


@pytest.mark.parametrize("sign", AMBIGUOUS, ids=ascii)
async def test_a_redirect_that_parsers_read_in_different_ways_is_refused(sign: str) -> None:
    for target in ("//127.0.0.1:80{}@8.8.8.8/", "/a{}b"):
        location = target.format(sign) + PATIENT
        async with server(says("302 Found", f"Location: {location}")) as url:
            assert isinstance(await fault(url), InvalidArgument)


def raw(answer: bytes) -> Answer:
    """Return a function that writes these bytes as every answer."""

    async def write(_: str, writer: asyncio.StreamWriter) -> None:
        writer.write(answer)

    return write


OK = b"HTTP/1.1 200 OK\r\n"


@pytest.mark.parametrize(
    "answer",
    [
        OK + b"Transfer-Encoding: gzip, chunked\r\n\r\n5\r\nsound\r\n0\r\n\r\n",
        OK + b"Transfer-Encoding: gzip\r\n\r\nsound",
        b"sound without a status line\r\n\r\n",
        b"\x15\x03\x03\x00\x02\x02\x50",  # an alert of TLS
        OK + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nsound",
        *[
            OK + b"Content-Length: %b\r\n\r\nsound" % length
            for length in (b"-1", b"1e3", b"9" * 5000)
        ],
        OK + b"A: " + b"a" * 200_000 + b"\r\n\r\nsound",
        OK + b"no colon\r\n\r\nsound",
    ],
    ids=lambda answer: ascii(answer[-60:]),
)
async def test_an_answer_that_is_not_http_is_refused_at_once(answer: bytes) -> None:
    async with server(raw(answer)) as url:
        error = await fault(url)
    assert isinstance(error, InvalidArgument)
    assert "does not answer in valid HTTP. Check the port" in str(error)


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"HTTP/1.1 20",
        OK + b"Content-Len",
        OK + b"Content-Length: 5\r\n\r\nsou",
        OK + b"Transfer-Encoding: chunked\r\n\r\n5\r\nsou",
        OK + b"Transfer-Encoding: chunked\r\n\r\n5\r\nsound\r\n<html>the server fails</html>",
        b"HTTP/1.1 100 Continue\r\n\r\n",
    ],
    ids=ascii,
)
async def test_an_answer_that_breaks_off_is_tried_again(answer: bytes) -> None:
    async with server(raw(answer)) as url:
        assert isinstance(await fault(url), Unavailable)
