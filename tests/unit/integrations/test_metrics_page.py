"""`/metrics` with many scrapers: one answer at a time, in a thread."""

import asyncio
import threading
from collections.abc import Callable

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.core import GaugeMetricFamily, Metric

from bus.integrations.prometheus import MetricsPage
from bus.operations.http_server import Response


class Slow:
    """A collector that waits until the test lets it go on."""

    def __init__(self) -> None:
        self.may_answer = threading.Event()
        self.has_begun = asyncio.Event()
        self.calls = 0
        self.running = 0
        self.loop = asyncio.get_running_loop()

    def collect(self) -> list[Metric]:
        self.calls += 1
        self.running += 1
        assert self.running == 1
        self.loop.call_soon_threadsafe(self.has_begun.set)
        assert self.may_answer.wait(20)
        self.running -= 1
        return [GaugeMetricFamily("calls", "Calls.", value=self.calls)]

    def describe(self) -> list[Metric]:
        return []


OPEN = "application/openmetrics-text"


@pytest.fixture
async def slow() -> Slow:
    return Slow()


def page_of(slow: Slow) -> MetricsPage:
    registry = CollectorRegistry()
    registry.register(slow)
    return MetricsPage(registry)


async def test_requests_that_wait_for_an_answer_share_it(slow: Slow) -> None:
    page = page_of(slow)
    waiting = [asyncio.create_task(page("")) for _ in range(20)]
    await slow.has_begun.wait()  # the event loop goes on while the thread waits
    slow.may_answer.set()
    answers = await asyncio.gather(*waiting)

    assert {each.content for each in answers} == {answers[0].content}
    assert b"calls 1.0" in answers[0].content
    assert b"calls 2.0" in (await page("")).content


async def test_both_formats_are_created_one_after_the_other(slow: Slow) -> None:
    page = page_of(slow)
    waiting = [asyncio.create_task(page(accept)) for accept in ("", OPEN)]
    await slow.has_begun.wait()
    slow.may_answer.set()
    text, openmetrics = await asyncio.gather(*waiting)

    assert text.content_type == "text/plain; version=0.0.4; charset=utf-8"
    assert openmetrics.content_type == "application/openmetrics-text; version=1.0.0; charset=utf-8"
    assert openmetrics.content.endswith(b"# EOF\n")


async def test_a_scraper_that_disconnects_does_not_end_the_answer_of_the_others(slow: Slow) -> None:
    page = page_of(slow)
    first, second = (asyncio.create_task(page("")) for _ in range(2))
    await slow.has_begun.wait()
    first.cancel()
    slow.may_answer.set()

    assert b"calls 1.0" in (await second).content


async def test_an_error_of_one_answer_does_not_stay(slow: Slow) -> None:
    slow.may_answer.set()
    errors = [OSError("the broker is away")]

    async def refresh() -> Callable[[], object] | None:
        if errors:
            raise errors.pop()
        return None

    registry = CollectorRegistry()
    registry.register(slow)
    page = MetricsPage(registry, refresh)

    with pytest.raises(OSError, match="away"):
        await page("")
    answer = await page("")
    assert isinstance(answer, Response)
    assert b"calls 1.0" in answer.content
