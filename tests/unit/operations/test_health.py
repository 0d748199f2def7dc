import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from bus.errors import BusError, ConfigurationError, DeadlineExceeded, Unavailable
from bus.operations import health, http_server
from bus.operations.brokers.ports import LOOPBACK, free_ports
from bus.operations.health import LIVE, READY, aggregate, probe, read_probe, serve_probes
from tests.polling import until

FIRST = "GET /livez HTTP/1.1\r\nhost: a\r\n"


class Service:
    """A service with a socket for probes, and the reason why it is not ready."""

    def __init__(self, folder: Path) -> None:
        self.at = folder / "service"
        self.why: str | None = None

    async def ready(self) -> str | None:
        return self.why

    async def says(self, request: str, *, end: bool = False) -> str:
        """Return the whole answer to a request, until the connection ends."""
        reader, writer = await asyncio.open_unix_connection(self.at)
        writer.write(request.encode("latin-1"))
        if end:
            writer.write_eof()
        try:
            async with asyncio.timeout(20):
                return (await reader.read()).decode()
        finally:
            writer.close()


@pytest.fixture
async def service(tmp_path: Path) -> AsyncIterator[Service]:
    service = Service(tmp_path)
    async with serve_probes(service.at, ready=service.ready):
        yield service


@asynccontextmanager
async def silent(at: Path) -> AsyncIterator[None]:
    """Accept connections and send nothing, like a process whose event loop is stuck."""
    writers: list[asyncio.StreamWriter] = []
    async with await asyncio.start_unix_server(lambda _, writer: writers.append(writer), at):
        yield
        for writer in writers:
            writer.close()


async def test_who_is_live_and_ready_says_so(service: Service) -> None:
    assert [await probe(service.at, path, timeout=5) for path in (LIVE, READY)] == [None, None]


async def test_a_process_that_is_ready_can_add_a_note(tmp_path: Path) -> None:
    service, notes = Service(tmp_path), [""]
    async with serve_probes(service.at, ready=service.ready, note=lambda: notes[0]):
        assert await read_probe(service.at, READY, timeout=5) == (True, "ready")
        notes[0] = "paused: a dependency is down"
        assert await read_probe(service.at, READY, timeout=5) == (
            True,
            "ready (paused: a dependency is down)",
        )
        assert await probe(service.at, READY, timeout=5) is None
        assert await read_probe(service.at, LIVE, timeout=5) == (True, "live")
        service.why = "stopping"
        assert await read_probe(service.at, READY, timeout=5) == (False, "not ready: stopping")


async def test_who_is_not_ready_says_why_and_is_live_all_the_same(service: Service) -> None:
    service.why = "stopping"

    assert [await probe(service.at, path, timeout=5) for path in (LIVE, READY)] == [
        None,
        "not ready: stopping",
    ]


async def test_an_answer_is_a_line_that_nobody_keeps(service: Service) -> None:
    service.why = "stopping"
    head, _, body = (await service.says("GET /readyz?verbose HTTP/1.0\r\n\r\n")).partition(
        "\r\n\r\n"
    )

    status, *headers = head.split("\r\n")
    headers = [each.casefold() for each in headers]
    assert (status, body) == ("HTTP/1.1 503 Service Unavailable", "not ready: stopping\n")
    assert {"content-length: 20", "connection: close", "cache-control: no-store"} <= {*headers}


async def test_head_is_get_without_the_body(service: Service) -> None:
    whole, head = [
        await service.says(f"{method} /readyz HTTP/1.1\r\nHost: a\r\n\r\n")
        for method in ("GET", "HEAD")
    ]

    assert whole.startswith("HTTP/1.1 200 OK\r\n")
    assert head == whole.removesuffix("ready\n")


REFUSED = {
    "another path": ("GET / HTTP/1.1\r\nhost: a\r\n\r\n", 404),
    "a path beside": ("GET /readyz/../livez HTTP/1.1\r\nhost: a\r\n\r\n", 404),
    "another method": ("POST /livez HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\n\r\nabc", 405),
    "a method in small letters": ("get /livez HTTP/1.1\r\nhost: a\r\n\r\n", 400),
    "no host": ("GET /livez HTTP/1.1\r\n\r\n", 400),
    "another protocol's version": ("GET /livez HTTP/2.0\r\nhost: a\r\n\r\n", 400),
    "no version": ("GET /livez\r\nhost: a\r\n\r\n", 400),
    "a proxy's form": ("GET http://a/livez HTTP/1.1\r\nhost: a\r\n\r\n", 400),
    "two spaces": ("GET  /livez HTTP/1.1\r\nhost: a\r\n\r\n", 400),
    "an empty line first": ("\r\n\r\nGET /livez HTTP/1.1\r\nhost: a\r\n\r\n", 400),
    "bytes that are no text": ("GET /\xff\x00 HTTP/1.1\r\nhost: a\r\n\r\n", 400),
    "the beginning of TLS": ("\x16\x03\x01\x02\x00\x01\r\n\r\n", 400),
    "a head without end": (FIRST + "x: y\r\n" * 100_000, 431),
    "one long line": ("GET /" + "a" * 100_000, 431),
    "a long head": (FIRST + f"x: {'y' * 9000}\r\n\r\n", 431),
}


@pytest.mark.parametrize("case", REFUSED)
async def test_what_is_no_probe_is_refused(service: Service, case: str) -> None:
    request, status = REFUSED[case]

    assert (await service.says(request)).startswith(f"HTTP/1.1 {status} ")
    assert await probe(service.at, LIVE, timeout=5) is None


async def test_who_sends_more_than_is_read_still_hears_the_answer(service: Service) -> None:
    def send_all_and_only_then_read() -> bytes:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(20)
            connection.connect(str(service.at))
            connection.sendall(b"x" * 8_000_000)
            return connection.recv(100)

    assert (await asyncio.to_thread(send_all_and_only_then_read)).startswith(b"HTTP/1.1 431 ")


async def test_who_may_do_what_is_said_with_the_refusal(service: Service) -> None:
    assert "\r\nallow: GET, HEAD\r\n" in await service.says(
        "DELETE /livez HTTP/1.1\r\nhost: a\r\n\r\n"
    )


@pytest.mark.parametrize(
    "request_", ["", "GET /livez", FIRST], ids=["nothing", "half a line", "half a head"]
)
async def test_who_ends_too_soon_gets_no_answer(service: Service, request_: str) -> None:
    assert await service.says(request_, end=True) == ""


async def test_a_request_in_pieces_is_one_request(service: Service) -> None:
    reader, writer = await asyncio.open_unix_connection(service.at)
    for byte in f"{FIRST}\r\n".encode():
        writer.write(bytes([byte]))
        await writer.drain()
        await asyncio.sleep(0)

    async with asyncio.timeout(20):
        assert (await reader.read()).startswith(b"HTTP/1.1 200 ")
    writer.close()


async def test_a_slow_client_is_cut_off(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_server, "CONNECTION_TIMEOUT_SECONDS", 0.05)

    assert await service.says(FIRST) == ""


async def test_slow_clients_keep_no_probe_out(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_server, "CONNECTION_TIMEOUT_SECONDS", 1000)
    monkeypatch.setattr(http_server, "MAX_WAITING", 32)
    slow = [await asyncio.open_unix_connection(service.at) for _ in range(32)]
    for _, writer in slow:
        writer.write(FIRST.encode())

    assert await probe(service.at, READY, timeout=4) is None
    await until(lambda: slow[0][0].at_eof() or slow[0][0].exception(), "the end of the oldest")
    for _, writer in slow:
        writer.close()


async def test_who_comes_in_a_crowd_is_cut_off_as_well(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Accept all in one turn of the loop: the tasks of disconnected clients have not begun."""
    monkeypatch.setattr(http_server, "CONNECTION_TIMEOUT_SECONDS", 1000)
    monkeypatch.setattr(http_server, "MAX_WAITING", 32)
    crowd = [socket.socket(socket.AF_UNIX) for _ in range(64)]
    for each in crowd:
        each.connect(str(service.at))
        each.setblocking(False)

    await until(lambda: sum(map(_ended, crowd)) == 32, "the end of the first half")
    for each in crowd:
        each.close()


def _ended(connection: socket.socket) -> bool:
    try:
        return connection.recv(1) == b""
    except BlockingIOError:
        return False


async def test_the_end_cuts_off_who_is_there_and_frees_the_port(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_server, "CONNECTION_TIMEOUT_SECONDS", 1000)
    service, at = Service(tmp_path), (LOOPBACK, free_ports(1)[0])
    async with serve_probes(at, ready=service.ready):
        reader, writer = await asyncio.open_connection(*at)
        writer.write(FIRST.encode())
        await probe(at, LIVE, timeout=5)

    async with asyncio.timeout(20):
        assert await reader.read() == b""
    writer.close()
    with pytest.raises(Unavailable, match="no process answers health probes"):
        await probe(at, LIVE, timeout=5)
    async with serve_probes(at, ready=service.ready):
        assert await probe(at, LIVE, timeout=5) is None


async def test_without_a_place_nobody_answers(tmp_path: Path) -> None:
    service = Service(tmp_path)
    async with serve_probes(None, ready=service.ready):
        with pytest.raises(Unavailable):
            await probe(service.at, LIVE, timeout=5)


@pytest.mark.parametrize("host", [LOOPBACK, "203.0.113.1"])
async def test_a_port_that_cannot_be_had_is_a_wrong_setting(service: Service, host: str) -> None:
    async with await asyncio.start_server(lambda *_: None, LOOPBACK, 0) as taken:
        port = taken.sockets[0].getsockname()[1]
        with pytest.raises(
            ConfigurationError, match=rf"on {host}:{port} \(.+\)\. Set BUS_HEALTH_PORT"
        ):
            async with serve_probes((host, port), ready=service.ready):
                pass


async def test_who_takes_the_question_and_is_silent_is_stuck(tmp_path: Path) -> None:
    async with silent(tmp_path / "1"):
        with pytest.raises(DeadlineExceeded, match="does not answer within"):
            await probe(tmp_path / "1", LIVE, timeout=0.05)


@pytest.mark.parametrize(
    "answer",
    [b"HTTP/1.1 404 Not Found\r\n\r\n", b"220 mail.example ESMTP\r\n\r\n", b"\xff" * 20_000, b""],
)
async def test_what_answers_and_is_no_bus_is_told(tmp_path: Path, answer: bytes) -> None:
    def begin(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(answer)
        writer.close()

    async with await asyncio.start_unix_server(begin, tmp_path / "1"):
        with pytest.raises(BusError) as caught:
            await probe(tmp_path / "1", LIVE, timeout=5)
    assert isinstance(caught.value, Unavailable)


async def test_a_family_is_ready_when_all_are(tmp_path: Path) -> None:
    one, other = Service(tmp_path), Service(tmp_path)
    together = aggregate([tmp_path / "1", tmp_path / "2"])

    async with serve_probes(tmp_path / "1", ready=one.ready):
        assert await together.ready() == "1 of 2 processes"
        async with serve_probes(tmp_path / "2", ready=other.ready):
            assert await together.ready() is None
            one.why = other.why = "stopping"
            assert await together.ready() == "2 of 2 processes"


async def test_a_family_that_is_ready_passes_the_notes_of_its_processes_on(tmp_path: Path) -> None:
    one, other, paused = Service(tmp_path), Service(tmp_path), "paused: a dependency is down"
    notes, parent = ["", ""], tmp_path / "parent"
    together = aggregate([tmp_path / "1", tmp_path / "2"])

    async with (
        serve_probes(tmp_path / "1", ready=one.ready, note=lambda: notes[0]),
        serve_probes(tmp_path / "2", ready=other.ready, note=lambda: notes[1]),
        serve_probes(parent, ready=together.ready, live=together.live, note=together.note),
    ):
        assert await read_probe(parent, READY, timeout=5) == (True, "ready")
        notes[1] = paused
        some = f"ready ({paused}, in 1 of 2 processes)"
        assert await read_probe(parent, READY, timeout=5) == (True, some)
        notes[0] = paused
        assert await read_probe(parent, READY, timeout=5) == (True, f"ready ({paused})")
        assert await read_probe(parent, LIVE, timeout=5) == (True, "live")
        one.why = "stopping"
        refused = "not ready: 1 of 2 processes"
        assert await read_probe(parent, READY, timeout=5) == (False, refused)


async def test_a_family_is_live_unless_one_is_stuck(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health, "SIBLING_TIMEOUT_SECONDS", 0.05)
    together = aggregate([tmp_path / "1", tmp_path / "2"])

    assert await together.live() is None  # both processes are starting
    async with silent(tmp_path / "1"):
        assert await together.live() == "1 of 2 processes"
        assert await together.ready() == "2 of 2 processes"
