"""Key sets from servers that are slow, silent or wrong."""

import asyncio
import gzip
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from bus.errors import ConfigurationError
from bus.security.jwks_source import MAX_KEY_SET_BYTES, PublicSource, public_key_source
from bus.security.key_directory import KeyDirectory
from bus.security.keyring import Keyring
from tests.polling import until
from tests.security.key_server import Behaviour, KeyServer, answer, bytewise, key_server
from tests.security.yard import Yard

LIMIT = 0.3
SLOW = 0.05
"""Seconds between two bytes. No single read of the client reaches the limit."""

CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[KeyServer]:
    with key_server(tmp_path) as server:
        monkeypatch.setenv("SSL_CERT_FILE", str(server.certificates.authority))
        yield server


def read(source: PublicSource) -> bytes:
    async def text() -> bytes:
        return await source()

    return asyncio.run(text())


def downloads() -> list[threading.Thread]:
    return [each for each in threading.enumerate() if each.name == "bus-key-set"]


def behaviours(server: KeyServer) -> dict[str, Behaviour]:
    text = answer(Yard().text() + b" " * 1000)
    head, body = text.split(b"\r\n\r\n", 1)
    return {
        "silent before TLS": server.silent,
        "slow head": server.answering(*bytewise(text), every=SLOW),
        "slow body": server.answering(head + b"\r\n\r\n", *bytewise(body), every=SLOW),
        "slow chunks": server.answering(
            CHUNKED,
            *([b"1\r\n \r\n"] * 1000),
            every=SLOW,
        ),
        "endless interim answers": server.answering(
            *([b"HTTP/1.1 100 Continue\r\n\r\n"] * 1000), every=SLOW
        ),
    }


@pytest.mark.parametrize(
    "name",
    ["silent before TLS", "slow head", "slow body", "slow chunks", "endless interim answers"],
)
def test_one_limit_holds_for_the_whole_download_however_slowly_it_comes(
    server: KeyServer, name: str
) -> None:
    server.behave = behaviours(server)[name]
    began = time.monotonic()
    with pytest.raises(TimeoutError, match=r"did not send a complete key set within 0\.3 s"):
        read(public_key_source(server.url, limit=LIMIT))
    assert time.monotonic() - began < LIMIT + 1
    asyncio.run(until(lambda: not downloads(), "the end of the thread"))


def test_while_a_key_set_is_slow_the_threads_of_handlers_stay_free(server: KeyServer) -> None:
    server.behave = server.answering(*bytewise(answer(Yard().text())), every=SLOW)

    async def run() -> None:
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(1))
        reads = [asyncio.ensure_future(public_key_source(server.url)()) for _ in range(3)]
        await until(lambda: server.served == 3, "the downloads")
        assert await asyncio.wait_for(asyncio.to_thread(lambda: "free"), 2) == "free"
        for read in reads:
            read.cancel()
        await asyncio.gather(*reads, return_exceptions=True)

    asyncio.run(run())


def test_a_name_server_that_hangs_holds_one_thread_and_not_one_for_each_attempt(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    answered = threading.Event()

    def hang(*_args: Any, **_names: Any) -> list[Any]:
        answered.wait(10)
        raise socket.gaierror("no such host")

    monkeypatch.setattr(socket, "getaddrinfo", hang)
    source = public_key_source("https://keys.example/jwks.json", limit=0.05)
    try:
        with pytest.raises(TimeoutError):
            read(source)
        for _ in range(3):
            with pytest.raises(OSError, match=r"has not ended yet\. Check that the name"):
                read(source)
        assert len(downloads()) == 1
    finally:
        answered.set()
    asyncio.run(until(lambda: not downloads(), "the end of the thread"))
    with pytest.raises(OSError, match=r"no such host|within 0\.05 s"):
        read(source)  # It is tried again.


def test_a_download_for_which_no_thread_can_be_started_does_not_prevent_the_next_one(
    server: KeyServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = Yard().text()
    server.behave = server.answering(answer(text))
    source = public_key_source(server.url)

    def refuse(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", refuse)
        with pytest.raises(OSError, match="no thread can be started"):
            read(source)
    assert read(source) == text


@pytest.mark.parametrize(
    ("sent", "why"),
    [
        (answer(b"", "Location: /jwks.json", status="302 Found"), "302, a redirect. Set BUS_JWKS"),
        (answer(b"", status="206 Partial Content"), "status 206"),
        (answer(gzip.compress(b" " * 10**7), "Content-Encoding: gzip"), "has a Content-Encoding"),
        (answer(b"0123456789")[:-1], "ended before its last byte"),
        (b"220 mail.example ESMTP\r\n", r"not valid HTTP \(BadStatusLine\)"),
        (b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * 1000 + b"\r\n", r"not valid HTTP \(HTTPExc"),
        (CHUNKED + b"-5\r\nhello\r\n0\r\n\r\n", r"not valid HTTP \(ValueError"),
    ],
)
def test_an_answer_that_is_not_a_complete_key_set_is_refused_with_the_reason(
    server: KeyServer, sent: bytes, why: str
) -> None:
    server.behave = server.answering(sent)
    with pytest.raises(OSError, match=why):
        read(public_key_source(server.url))


def test_an_endless_answer_is_refused_at_the_largest_size(server: KeyServer) -> None:
    head = b"HTTP/1.1 200 OK\r\n\r\n"
    server.behave = server.answering(head, *([b" " * 65536] * 1000))
    with pytest.raises(ConfigurationError, match=f"larger than {MAX_KEY_SET_BYTES} bytes"):
        read(public_key_source(server.url))


def test_a_proxy_of_the_environment_forwards_the_download_and_no_proxy_excludes_hosts(
    server: KeyServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    text, asked = Yard().text(), []

    def forward(connection: socket.socket) -> None:
        asked.append(connection.recv(4096))
        connection.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
        server.answering(answer(text))(connection)

    server.behave = forward
    monkeypatch.setenv("https_proxy", f"http://us%65r:pass@127.0.0.1:{server.port}")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    assert read(public_key_source("https://localhost/jwks.json")) == text
    assert asked[0].startswith(b"CONNECT localhost:443 HTTP/1.")
    assert b"Proxy-Authorization: Basic dXNlcjpwYXNz" in asked[0]
    monkeypatch.setenv("no_proxy", "localhost")
    server.behave = server.answering(answer(text))
    assert read(public_key_source(server.url)) == text


@pytest.mark.parametrize(
    "proxy",
    [
        "http://user:secret@127.0.0.1:99999",
        "http://user:secret@[::1",
        "http://user:secret@127.0.0.1:abc",
        "http://user:secret@a..b:3",
        "http://user:secret@127.0.0.1:0",
        "http://user:secret@a b:3",
        "socks5://user:secret@localhost:3",
    ],
)
def test_a_proxy_that_no_address_can_be_is_a_configuration_error_that_shows_no_password(
    proxy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.setenv("https_proxy", proxy)
    ring = Keyring("office", public_key_source("https://keys.example/jwks.json"), list)
    with pytest.raises(ConfigurationError, match="https_proxy is not valid") as caught:
        asyncio.run(ring.start())
    assert "secret" not in str(caught.value)


def test_a_proxy_that_answers_byte_by_byte_is_interrupted_if_the_connection_came_too_late(
    server: KeyServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit_has_passed, connect = threading.Event(), socket.socket.connect

    def connect_late(opened: socket.socket, address: Any) -> None:
        limit_has_passed.wait(10)
        connect(opened, address)

    def drip(connection: socket.socket) -> None:
        connection.recv(4096)
        while not server.stopped.wait(SLOW):
            connection.sendall(b"H")

    server.behave = drip
    monkeypatch.setattr(socket.socket, "connect", connect_late)
    monkeypatch.setenv("https_proxy", f"http://127.0.0.1:{server.port}")
    try:
        with pytest.raises(TimeoutError):
            read(public_key_source("https://keys.example/jwks.json", limit=LIMIT))
    finally:
        limit_has_passed.set()
    asyncio.run(until(lambda: not downloads(), "the end of the thread"))


def test_after_the_limit_no_further_address_of_the_host_is_tried(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    limit_has_passed, tried = threading.Event(), []

    def refuse_late(_opened: socket.socket, address: Any) -> None:
        tried.append(address)
        limit_has_passed.wait(10)
        raise ConnectionRefusedError

    entry = (socket.AF_INET, socket.SOCK_STREAM, 0, "", ("127.0.0.1", 1))
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_args, **_names: [entry] * 3)
    monkeypatch.setattr(socket.socket, "connect", refuse_late)
    for limit in (0.05, 0.5, 5.0):  # on a loaded machine the first address needs some time
        limit_has_passed.clear()
        try:
            with pytest.raises(TimeoutError):
                read(public_key_source("https://keys.example/jwks.json", limit=limit))
        finally:
            limit_has_passed.set()
        asyncio.run(until(lambda: not downloads(), "the end of the thread"))
        if tried:
            break
    assert len(tried) == 1


def test_if_the_first_address_of_the_host_refuses_the_next_one_is_tried(
    server: KeyServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = Yard().text()
    server.behave = server.answering(answer(text))
    with socket.create_server(("127.0.0.1", 0)) as closed:
        refusing = closed.getsockname()[1]
    found = [
        (socket.AF_INET, socket.SOCK_STREAM, 0, "", ("127.0.0.1", port))
        for port in (refusing, server.port)
    ]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_args, **_names: found)
    assert read(public_key_source(server.url)) == text


async def test_a_keyring_that_closes_does_not_wait_for_a_download(server: KeyServer) -> None:
    yard = Yard()
    yard.key("office")
    server.behave = server.answering(answer(yard.text()))
    ring = Keyring(
        "office",
        public_key_source(server.url),
        lambda: yard.private["office"],
        clock=yard.clock,
        timer=yard.clock,
    )
    await ring.start()
    yard.clock.now += 100
    server.behave = server.answering(*bytewise(answer(yard.text())), every=SLOW)
    reading = asyncio.ensure_future(ring.refresh())
    await until(lambda: server.served == 2, "the second download")
    await asyncio.wait_for(ring.close(), 1)
    await asyncio.gather(reading, return_exceptions=True)
    await until(lambda: not downloads(), "the end of the thread")


SERVICE = """
    import asyncio, itertools, signal, sys
    from bus.security.jwks_source import private_key_source, public_key_source
    from bus.security.keyring import Keyring

    async def main():
        stop = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
        timer = itertools.count(0, 100).__next__
        key = private_key_source(sys.argv[2])
        public = public_key_source(sys.argv[1], limit=1000)
        ring = Keyring("office", public, key, timer=timer)
        await ring.start()
        print("started", flush=True)
        sys.stdin.readline()
        asyncio.ensure_future(ring.refresh())
        await stop.wait()

    asyncio.run(main())
"""


def test_a_process_ends_at_sigterm_while_a_key_set_comes_one_byte_at_a_time(
    server: KeyServer, tmp_path: Path
) -> None:
    keys = KeyDirectory(tmp_path / "keys")
    keys.new("office", "office-1")
    text = keys.set_file.read_bytes()
    server.behave = server.answering(answer(text))
    command = [sys.executable, "-c", textwrap.dedent(SERVICE), server.url]
    with subprocess.Popen(
        [*command, str(keys.key_file("office"))], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as service:
        assert service.stdin is not None
        assert service.stdout is not None
        try:
            assert service.stdout.readline() == b"started\n"
            slow = [*bytewise(answer(text + b" " * 400))]
            assert len(slow) * SLOW > 20  # longer than the process may take on a busy machine
            server.behave = server.answering(*slow, every=SLOW)
            service.stdin.write(b"read\n")
            service.stdin.flush()
            asyncio.run(until(lambda: server.served == 2, "the second download"))
            service.send_signal(signal.SIGTERM)
            assert service.wait(10) == 0
        finally:
            service.kill()
