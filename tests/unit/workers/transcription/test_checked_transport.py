"""Downloads reach only hosts on the internet, or the hosts that the operator lists."""

import asyncio
import socket
import ssl
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
from typing_extensions import override

from bus.errors import BusError, InvalidArgument, PermissionDenied, Unavailable
from tests.integration.certificates import certificates
from tests.unit.workers.transcription.web import (
    ANY,
    PATIENT,
    SOUND,
    content,
    fault,
    fetch,
    says,
    server,
)
from workers.transcription.checked_transport import CheckedTransport
from workers.transcription.download import Downloads
from workers.transcription.resolver import MOST_LOOKUPS, Resolver
from workers.transcription.settings import TranscriptionSettings

PUBLIC, PUBLIC_6 = "93.184.215.14", "2606:4700:4700::1111"


class Names(Resolver):
    """Resolver with fixed answers. Each lookup of a name returns the next one of its answers."""

    def __init__(self, **answers: Sequence[Sequence[str]]) -> None:
        super().__init__()
        self._answers = {f"{name}.example": iter(answer) for name, answer in answers.items()}

    @override
    async def addresses(self, host: str) -> list[str]:
        return list(next(self._answers[host]))


class Web:
    """Hosts by address. Each has an answer, or refuses the connection."""

    def __init__(self, **locations: str) -> None:
        self.asked: list[str] = []
        self.refusing: set[str] = set()
        self.hung: set[str] = set()
        self._locations = locations

    async def answer(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(request.url.host)
        if request.url.host in self.refusing:
            raise httpx.ConnectError("refused")
        if request.url.host in self.hung:
            await asyncio.sleep(request.extensions["timeout"]["connect"])
            raise httpx.ConnectTimeout("too slow")
        name = request.headers["host"].partition(".")[0]
        if location := self._locations.get(name):
            return httpx.Response(302, headers={"Location": location})
        return httpx.Response(200, stream=httpx.ByteStream(b"sound"))


async def fetched(web: Web, url: str, *, names: Resolver | None, connect: float = 1) -> bytes:
    transport = CheckedTransport(httpx.MockTransport(web.answer), resolver=names)
    downloads = Downloads(transport, max_bytes=1000, timeout=httpx.Timeout(5, connect=connect))
    return await content(downloads, url)


async def refused(web: Web, url: str, *, names: Resolver | None) -> BusError:
    with pytest.raises(PermissionDenied) as raised:
        await fetched(web, url, names=names)
    assert not raised.value.retryable
    assert PATIENT not in str(raised.value)
    assert "TRANSCRIPTION_HOSTS=" in str(raised.value)
    return raised.value


async def test_a_public_host_is_asked_by_default() -> None:
    web = Web()
    assert await fetched(web, "http://store.example/", names=Names(store=[[PUBLIC]])) == b"sound"
    assert web.asked == [PUBLIC]


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "10.0.0.1",
        "169.254.169.254",
        "100.64.0.1",
        "::1",
        "fd00:ec2::254",
        "64:ff9b::a00:1",
    ],
)
async def test_a_name_with_a_special_address_is_not_asked_by_default(address: str) -> None:
    web = Web()
    error = await refused(web, f"http://db.example/{PATIENT}", names=Names(db=[[address]]))
    assert web.asked == []
    assert """TRANSCRIPTION_HOSTS='["db.example"]'""" in str(error)
    assert address not in str(error)


@pytest.mark.parametrize("with_proxy", [False, True])
@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "192.168.1.1",
        "169.254.169.254",
        "[::1]",
        "[::ffff:127.0.0.1]",
        "[2002:7f00:1::]",
    ],
)
async def test_a_special_address_in_the_url_is_not_asked_by_default(
    host: str, with_proxy: bool
) -> None:
    web = Web()
    await refused(web, f"http://{host}/{PATIENT}", names=None if with_proxy else Names())
    assert web.asked == []


async def test_a_server_on_this_machine_is_not_even_connected_to_by_default() -> None:
    connected: list[object] = []
    listening = await asyncio.start_server(lambda *_: connected.append(1), "127.0.0.1", 0)
    async with listening:
        port = listening.sockets[0].getsockname()[1]
        for host in ("127.0.0.1", "localhost", "[::ffff:127.0.0.1]"):
            error = await fault(f"http://{host}:{port}/{PATIENT}", hosts=ANY, fetch_timeout=2)
            assert isinstance(error, PermissionDenied)
            assert "has no public address" in str(error)
    assert connected == []


async def test_each_redirect_is_checked() -> None:
    web = Web(store="http://db.example/", other="http://169.254.169.254/latest/meta-data/")
    names = partial(Names, db=[["10.0.0.1"]], store=[[PUBLIC]], other=[[PUBLIC]])
    await refused(web, "http://store.example/", names=names())
    await refused(web, "http://other.example/", names=names())
    assert web.asked == [PUBLIC, PUBLIC]


async def test_the_checked_address_is_the_one_that_is_connected_to() -> None:
    web = Web()
    names = Names(store=[[PUBLIC], ["127.0.0.1"]])
    assert await fetched(web, "http://store.example/", names=names) == b"sound"
    assert web.asked == [PUBLIC]
    await refused(web, "http://store.example/", names=names)
    assert web.asked == [PUBLIC]


async def test_of_several_addresses_only_the_public_ones_are_asked() -> None:
    web = Web()
    web.refusing = {PUBLIC}
    names = Names(store=[["127.0.0.1", PUBLIC, "10.0.0.1", PUBLIC_6]])
    assert await fetched(web, "http://store.example/", names=names) == b"sound"
    assert web.asked == [PUBLIC, PUBLIC_6]


async def test_a_few_addresses_of_both_families_are_tried_in_the_time_to_connect() -> None:
    web = Web()
    addresses = [f"2606:4700:4700::{n}" for n in range(9)]
    web.hung = {*addresses, PUBLIC}
    loop = asyncio.get_running_loop()
    begun = loop.time()
    with pytest.raises(Unavailable, match="cannot be reached"):
        await fetched(
            web, "http://store.example/", names=Names(store=[[*addresses, PUBLIC]]), connect=0.06
        )
    assert web.asked == [addresses[0], PUBLIC, addresses[1]]
    assert loop.time() - begun < 1


async def test_only_listed_hosts_are_asked_even_by_a_redirect() -> None:
    async with server(says("302 Found", "Location: http://localhost:1/")) as url:
        error = await fault(url, hosts=frozenset({"127.0.0.1"}))
        assert isinstance(error, PermissionDenied)
        assert str(error) == "localhost is not in TRANSCRIPTION_HOSTS. Add it."
        assert isinstance(await fault(url, hosts=frozenset({"example.org"})), PermissionDenied)


@pytest.mark.parametrize(
    ("listed", "asked"),
    [("LocalHost.", "LOCALHOST"), ("localhost", "localhost."), ("::ffff:7f00:1", "127.0.0.1")],
)
async def test_a_listed_host_is_known_in_each_spelling(listed: str, asked: str) -> None:
    async with server(SOUND) as url:
        there = url.replace("127.0.0.1", asked)
        assert await fetch(there, hosts=frozenset({listed})) == b"sound"


@pytest.fixture
def trusted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ssl.SSLContext]:
    """Return the TLS context of the server store.example.

    The worker trusts its authority, and all names resolve to this machine.
    """
    made = certificates(tmp_path / "tls", "store.example")
    worker = ssl.create_default_context(cafile=made.authority)
    monkeypatch.setattr(ssl, "create_default_context", lambda *_, **__: worker)
    here = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", 0))]
    with monkeypatch.context() as patch:
        patch.setattr(socket, "getaddrinfo", lambda *_, **__: here)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(made.certificate, made.key)
        yield context


async def test_the_certificate_must_be_that_of_the_name_and_not_of_the_address(
    trusted: ssl.SSLContext,
) -> None:
    requests: list[str] = []

    async def answer(request: str, writer: asyncio.StreamWriter) -> None:
        requests.append(request)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nsound")  # keeps the connection

    names: list[str | None] = []
    trusted.sni_callback = lambda _, name, __: names.append(name)
    hosts = frozenset({"store.example", "other.example"})
    async with (
        server(answer, trusted) as url,
        Downloads.opened(TranscriptionSettings(hosts=hosts)) as downloads,
    ):
        store = url.replace("127.0.0.1", "STORE.example")
        assert await content(downloads, store) == b"sound"
        # A kept connection would be used here, and the other name would not be checked.
        with pytest.raises(Unavailable, match=r"https://other\.example:\d+ cannot be reached"):
            await content(downloads, url.replace("127.0.0.1", "other.example"))
    assert names == ["store.example", "other.example"]
    assert [request.split("Host: ")[1].partition(":")[0] for request in requests] == [
        "store.example"
    ]


async def test_a_proxy_gets_the_name_and_no_address_of_this_network() -> None:
    requests: list[str] = []

    async def proxy(request: str, writer: asyncio.StreamWriter) -> None:
        requests.append(request.splitlines()[0])
        await SOUND(request, writer)

    async with server(proxy) as url:
        through = partial(fault, hosts=ANY, proxy=url.partition(f"/{PATIENT}")[0])
        for host in ("10.0.0.1", "[::1]", "localhost", "db.localhost", "LOCALHOST."):
            assert isinstance(await through(f"http://{host}/{PATIENT}"), PermissionDenied)
        assert isinstance(await through("http://127.1/"), InvalidArgument)
        assert await fetch("http://db.internal/a", **through.keywords) == b"sound"
    assert requests == ["GET http://db.internal/a HTTP/1.1"]


async def test_slow_lookups_block_no_other_work(monkeypatch: pytest.MonkeyPatch) -> None:
    answered, running = threading.Event(), Counter[str]()

    def slow(host: str, *_: Any, **__: Any) -> list[Any]:
        running[host] += 1
        answered.wait(10)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (PUBLIC, 0))]

    resolver = Resolver()
    with monkeypatch.context() as patch:
        patch.setattr(socket, "getaddrinfo", slow)
        waiting = [
            asyncio.create_task(resolver.addresses("slow.example")) for _ in range(4 * MOST_LOOKUPS)
        ]
        with pytest.raises(Unavailable, match="cannot be reached"):
            await fetched(Web(), "http://slow.example/", names=resolver, connect=0.01)
        assert await asyncio.to_thread(lambda: "free") == "free"
        assert running.total() == MOST_LOOKUPS
        for task in waiting[:MOST_LOOKUPS]:
            task.cancel()  # its thread runs on, and its slot stays taken
        answered.set()
        assert await asyncio.gather(*waiting[MOST_LOOKUPS:]) == [[PUBLIC]] * 3 * MOST_LOOKUPS
    with pytest.raises(socket.gaierror):
        await resolver.addresses("nowhere.invalid")
