"""Test of the page on FastAPI: its steps, and its statements on the life of a process."""

import asyncio
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import pytest
import uvicorn

from bus import Context, Envelope, Internal, Router
from bus.operations.brokers.ports import free_ports
from bus.testing import MemoryBuses
from tests.examples.page import followed
from tests.examples.web_page import PAGE, Pages, importable, on_the_model, served
from tests.polling import until

SIGNED = {
    "BUS_AUTH": "on",
    "BUS_KEY": "keys/",
    "BUS_JWKS": "keys/jwks.json",
    "BUS_GRANTS": "grants.toml",
}
BROKEN = """
async def app(scope, receive, send):
    raise ConnectionError
"""
PATIENCE = "60"  # seconds. On a loaded machine a process can take longer than 5 s to start.
TRACE = f"00-{'a' * 32}-{'b' * 16}-01"


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pages]:
    with importable(tmp_path_factory.mktemp("page")) as pages:
        yield pages


@pytest.fixture
def app(page: Pages, buses: MemoryBuses, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return the application of the page; its lifespan connects to the model broker."""
    monkeypatch.setattr(page.connection, "Bus", on_the_model(buses))
    return page.app.app


class Held:
    """Handler of `loans.find` that answers when the test releases it."""

    def __init__(self, page: Pages) -> None:
        self.page = page
        self.seen: list[Envelope] = []
        self.released = asyncio.Event()
        self.router = Router("loans")
        self.router.request(page.contracts.FindLoan)(self.find)

    async def find(self, request: Any, context: Context) -> Any:
        self.seen.append(context.envelope)
        await self.released.wait()
        return self.page.contracts.Loan(number=request.number, title="Emma", reader="R", days=1)


async def test_the_page_does_what_it_says_with_signed_messages_in_two_processes(
    vhost_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    [port] = free_ports(1)
    url = f"http://127.0.0.1:{port}"
    web = {"UVICORN_PORT": str(port), "UVICORN_TIMEOUT_WORKER_HEALTHCHECK": PATIENCE}
    for name, value in {**SIGNED, **web, "WEB_URL": url}.items():
        monkeypatch.setenv(name, value)
    async with followed(PAGE, tmp_path, vhost_url):
        async with asyncio.timeout(60):
            assert len(await processes(url)) == 2


async def processes(url: str) -> set[int]:
    """Return the ids of two processes that answered, each with an open bus."""
    answered: set[int] = set()
    async with httpx.AsyncClient(base_url=url) as client:
        while len(answered) < 2:
            state = (await client.get("/readyz", headers={"Connection": "close"})).json()
            assert state["ready"]
            answered.add(state["process"])
    return answered


def test_without_a_broker_uvicorn_ends_with_exit_code_3(
    page: Pages, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BUS_URL", "amqp://guest:guest@127.0.0.1:1/")
    monkeypatch.setenv("BUS_CONNECT_TIMEOUT", "0.2")
    [port] = free_ports(1)
    with pytest.raises(SystemExit) as ended:
        uvicorn.run(page.app.app, port=port, log_config=None)
    assert ended.value.code == 3


async def test_with_workers_uvicorn_ends_with_exit_code_0_if_a_process_cannot_start(
    tmp_path: Path,
) -> None:
    (tmp_path / "broken.py").write_text(BROKEN, encoding="utf-8")
    command = ("-m", "uvicorn", "broken:app", "--workers", "2", "--lifespan", "on", "--port", "0")
    process = await asyncio.create_subprocess_exec(
        sys.executable, *command, cwd=tmp_path, stderr=asyncio.subprocess.PIPE
    )
    _, log = await process.communicate()
    assert b"failed to start, stopping the parent process" in log
    assert process.returncode == 0


async def test_a_stop_answers_the_requests_in_flight_before_it_closes_the_bus(
    app: Any, page: Pages, buses: MemoryBuses
) -> None:
    held = Held(page)
    await buses.serve(await buses.bus("loans"), held.router)
    async with served(app) as (server, client):
        asking = asyncio.create_task(client.get("/loans/1"))
        await until(lambda: held.seen, "the request")
        server.should_exit = True
        await until(lambda: not server.servers[0].is_serving(), "the end of accepting")
        assert app.state.bus.ready
        held.released.set()
        assert (await asking).status_code == 200
    assert not app.state.bus.ready


async def test_a_client_that_disconnects_does_not_cancel_the_call(
    app: Any, page: Pages, buses: MemoryBuses, monkeypatch: pytest.MonkeyPatch
) -> None:
    held, replies = Held(page), []
    await buses.serve(await buses.bus("loans"), held.router)
    async with served(app) as (server, client):
        original = app.state.bus.request

        async def request(*arguments: Any, **options: Any) -> Any:
            replies.append(await original(*arguments, **options))
            return replies[-1]

        monkeypatch.setattr(app.state.bus, "request", request)
        asking = asyncio.create_task(client.get("/loans/1"))
        await until(lambda: held.seen, "the request")
        asking.cancel()
        await until(lambda: not server.server_state.connections, "the end of the connection")
        held.released.set()
        await until(lambda: replies, "the reply")


async def test_the_ids_of_an_http_request_reach_the_service(
    app: Any, page: Pages, buses: MemoryBuses
) -> None:
    held = Held(page)
    held.released.set()
    await buses.serve(await buses.bus("loans"), held.router)
    async with served(app) as (_, client):
        headers = {"X-Request-ID": "tour-1", "traceparent": TRACE}
        answer = await client.get("/loans/1", headers=headers)
        assert answer.headers["X-Request-ID"] == "tour-1"
        [seen] = held.seen
        assert (seen.correlation_id, seen.traceparent) == ("tour-1", TRACE)


async def test_ids_that_are_not_valid_are_replaced(
    app: Any, page: Pages, buses: MemoryBuses
) -> None:
    held = Held(page)
    held.released.set()
    await buses.serve(await buses.bus("loans"), held.router)
    async with served(app) as (_, client):
        headers = {"X-Request-ID": "a b" * 99, "traceparent": "Emma"}
        answer = await client.get("/loans/1", headers=headers)
        [seen] = held.seen
        assert seen.correlation_id == str(UUID(answer.headers["X-Request-ID"]))
        assert seen.traceparent
        assert "Emma" not in seen.traceparent


async def test_all_calls_of_an_http_request_share_its_seconds(
    page: Pages, monkeypatch: pytest.MonkeyPatch
) -> None:
    times = iter([100.0, 103.0, 104.5, 109.0])
    monkeypatch.setattr(page.connection, "monotonic", lambda: next(times))
    time_left = await page.connection.start_clock()
    assert [time_left(), time_left(), time_left()] == [2.0, 0.5, 0.001]


async def test_a_watched_job_that_takes_too_long_ends_the_response_and_not_the_job(
    app: Any, page: Pages, buses: MemoryBuses, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(page.app, "WATCH_SECONDS", 0.05)
    released, router = asyncio.Event(), Router("loans")

    @router.job(page.contracts.RemindReaders)
    async def remind(job: Any) -> Any:
        await released.wait()
        return page.contracts.Reminded(letters=1)

    await buses.serve(await buses.bus("loans"), router)
    async with served(app) as (_, client):
        answer = await client.post("/reminders/watched", json={"days_overdue": 1})
        assert answer.text.splitlines()[-1] == '{"state": "running"}'
        released.set()
        await buses.settled()
    buses.dead(page.contracts.RemindReaders).none()


async def test_a_watched_job_that_fails_ends_with_its_code(
    app: Any, page: Pages, buses: MemoryBuses
) -> None:
    router = Router("loans")

    @router.job(page.contracts.RemindReaders)
    async def remind(job: Any) -> Any:
        error = Internal("confidential")
        error.retryable = False  # type: ignore[misc]
        raise error

    await buses.serve(await buses.bus("loans"), router)
    async with served(app) as (_, client):
        answer = await client.post("/reminders/watched", json={"days_overdue": 1})
        assert answer.text.splitlines()[-1] == '{"code": "internal"}'
