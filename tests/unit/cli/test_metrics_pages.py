"""`/metrics` of `bus run`: in one process, of a parent, and without the extra."""

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from http import HTTPStatus
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from bus.cli import metrics_pages
from bus.cli.metrics_pages import METRICS, STATS, child_pages, parent_pages, worker_pages
from bus.contracts.contract import Message, Request, contract
from bus.errors import NotFound
from bus.messaging.service_info import ProcessStats
from bus.operations.http_client import fetch
from bus.operations.http_server import Response, serve_http
from bus.runtime.bus import Bus
from bus.runtime.router import Router
from bus.testing.buses import MemoryBuses


class Price(Message):
    cents: int


@contract("shop.price", version=1, idempotent=True)
class AskPrice(Request[Price]):
    book: str


router = Router("shop")


@router.request(AskPrice)
async def price(request: AskPrice) -> Price:
    if request.book != "Emma":
        raise NotFound("no such book")
    return Price(cents=420)


@asynccontextmanager
async def shop_and_till(*, failures: int = 1) -> AsyncIterator[tuple[Bus, Bus]]:
    """Yield the buses of two services, of which one has called the other."""
    async with MemoryBuses() as buses:
        shop, till = await buses.bus("shop", service_version="7"), await buses.bus("till")
        await buses.serve(shop, router)
        for _ in range(3):
            await till.request(AskPrice(book="Emma"))
        for _ in range(failures):
            with pytest.raises(NotFound):
                await till.request(AskPrice(book="Persuasion"))
        await buses.settled()
        yield shop, till


def read(content: bytes) -> list[Sample]:
    return [
        each
        for family in text_string_to_metric_families(content.decode())
        for each in family.samples
    ]


def values(content: bytes, name: str, *labels: str) -> dict[tuple[str, ...], float]:
    """Return the values of a metric, by some of its labels."""
    return {
        tuple(each.labels[label] for label in labels): each.value
        for each in read(content)
        if each.name == name
    }


async def test_the_metrics_of_a_process_have_the_messages_of_each_of_its_services() -> None:
    async with shop_and_till() as buses:
        answer = await worker_pages(buses)[METRICS]("")

    content = answer.content
    assert values(content, "trunkline_messages_handled_total", "service", "caller", "outcome") == {
        ("shop", "till", "ok"): 3,
        ("shop", "till", "not_found"): 1,
    }
    assert values(content, "trunkline_messages_sent_total", "service", "operation", "outcome") == {
        ("till", "shop.price", "ok"): 3,
        ("till", "shop.price", "not_found"): 1,
    }
    count = "trunkline_messages_handler_duration_seconds_count"
    assert values(content, count, "service") == {("shop",): 4}
    assert values(content, "trunkline_ready", "service") == {("shop",): 1, ("till",): 1}
    assert values(content, "trunkline_build_info", "service", "service_version") == {
        ("shop", "7"): 1,
        ("till", ""): 1,
    }


async def test_the_metrics_of_a_process_have_its_python_memory_and_cpu() -> None:
    names = {each.name for each in read((await worker_pages([])[METRICS]("")).content)}

    assert {
        "process_resident_memory_bytes",
        "process_cpu_seconds_total",
        "process_open_fds",
        "python_info",
        "python_gc_collections_total",
    } <= names


async def test_the_parent_shows_the_sums_of_its_processes(tmp_path: Path) -> None:
    sockets = [tmp_path / "1", tmp_path / "2"]
    async with (
        shop_and_till() as one,
        shop_and_till(failures=2) as other,
        serve_http(sockets[0], child_pages(one)),
        serve_http(sockets[1], child_pages(other)),
    ):
        content = (await parent_pages(sockets)[METRICS]("")).content

    assert values(content, "trunkline_messages_handled_total", "outcome") == {
        ("ok",): 6,
        ("not_found",): 3,
    }
    assert values(content, "trunkline_processes", "state") == {("answering",): 2, ("silent",): 0}
    assert values(content, "process_resident_memory_bytes", "process").keys() == {("1",), ("2",)}


async def test_a_process_that_hangs_or_is_away_delays_the_scrape_only_briefly(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metrics_pages, "CHILD_TIMEOUT_SECONDS", 0.1)
    sockets = [tmp_path / "1", tmp_path / "hangs", tmp_path / "away", tmp_path / "other"]
    hanging: list[asyncio.StreamWriter] = []

    async with (
        shop_and_till() as buses,
        serve_http(sockets[0], child_pages(buses)),
        await asyncio.start_unix_server(lambda _, writer: hanging.append(writer), sockets[1]),
        serve_http(sockets[3], {}),
    ):
        page = parent_pages(sockets)[METRICS]
        async with asyncio.timeout(20):
            content = (await page("")).content
        for writer in hanging:
            writer.close()

    assert values(content, "trunkline_processes", "state") == {("answering",): 1, ("silent",): 3}
    assert values(content, "trunkline_messages_handled_total", "outcome")["ok",] == 3
    assert set(values(content, "trunkline_ready", "service").values()) == {0}


async def test_only_the_socket_of_a_child_has_the_reports_as_json(tmp_path: Path) -> None:
    async with shop_and_till() as buses, serve_http(tmp_path / "1", child_pages(buses)):
        reply = await fetch(tmp_path / "1", STATS, max_bytes=1_000_000)

    stats = ProcessStats.model_validate_json(reply.content)
    assert stats.pid == os.getpid()
    assert [each.service for each in stats.instances] == ["shop", "till"]
    assert set(worker_pages(buses)) == set(parent_pages([tmp_path / "1"])) == {METRICS}


@pytest.fixture
def without_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [each for each in sys.modules if each.startswith("bus.integrations.prometheus")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "prometheus_client", None)


@pytest.mark.usefixtures("without_the_library")
async def test_without_the_extra_the_page_names_the_command_that_installs_it() -> None:
    pages = (worker_pages([])[METRICS], parent_pages([])[METRICS])
    expected = Response(
        status=HTTPStatus.NOT_FOUND,
        content=b"prometheus-client is not installed. Run `pip install 'trunkline[metrics]'`.\n",
    )

    assert [await page("") for page in (*pages, pages[0])] == [expected] * 3


async def test_scrapes_at_the_same_time_share_one_page() -> None:
    page = worker_pages([])[METRICS]

    answers = await asyncio.gather(*(page("") for _ in range(10)))
    assert {each.status for each in answers} == {HTTPStatus.OK}


def test_a_worker_starts_without_the_library() -> None:
    program = (
        "import sys, bus.cli.run\n"
        "loaded = {'prometheus_client', 'bus.integrations.prometheus'} & set(sys.modules)\n"
        "assert not loaded, loaded\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
