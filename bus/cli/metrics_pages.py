"""The pages `/metrics` of `bus run`, and the page on which a child process reports to its parent.

The package `bus.integrations.prometheus` is imported at the first scrape, because the import takes
a tenth of a second.
"""

import asyncio
import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from http import HTTPStatus
from importlib import import_module
from types import ModuleType
from typing import TypeVar

from bus.errors import ConfigurationError
from bus.messaging.blocking_calls import call_in_daemon_thread
from bus.operations.http_address import HttpAddress
from bus.operations.http_client import UnreadableReply, fetch
from bus.operations.http_server import Page, Response, text_response
from bus.runtime.bus import Bus

T = TypeVar("T")

__all__ = ["METRICS", "STATS", "child_pages", "parent_pages", "worker_pages"]

METRICS = "/metrics"
STATS = "/stats"
"""Path of the reports that a child process sends to its parent, on a Unix socket only."""
CHILD_TIMEOUT_SECONDS = 2.0
"""Maximum seconds for a child process to send its reports. Prometheus waits for 10 s."""
MAX_STATS_BYTES = 64 * 1024 * 1024
"""Maximum size of the reports of a child process."""


def worker_pages(buses: Sequence[Bus]) -> Mapping[str, Page]:
    """Return the pages of a process without a parent: `/metrics` of all its services."""

    def build(library: ModuleType) -> Page:
        page: Page = library.MetricsPage(library.process_registry(library.collector(*buses)))
        return page

    return {METRICS: LazyPage(build)}


def child_pages(buses: Sequence[Bus]) -> Mapping[str, Page]:
    """Return the pages of a child process: the reports of its services, as JSON."""

    def create() -> bytes:
        records = import_module("bus.messaging.service_info")
        reports = tuple(bus.report.stats() for bus in buses)
        content: str = records.ProcessStats(pid=os.getpid(), instances=reports).model_dump_json()
        return content.encode()

    async def page(_: str) -> Response:
        content = await _in_thread(create)
        return Response(content=content, content_type="application/json")

    return {STATS: page}


def parent_pages(children: Sequence[HttpAddress]) -> Mapping[str, Page]:
    """Return the pages of the parent of several processes: the sums of their metrics."""

    def build(library: ModuleType) -> Page:
        collector = library.ProcessesCollector(len(children))

        async def refresh() -> Callable[[], object]:
            contents = await asyncio.gather(*(_fetch_stats(child) for child in children))
            return partial(collector.update, contents)

        page: Page = library.MetricsPage(library.processes_registry(collector), refresh)
        return page

    return {METRICS: LazyPage(build)}


async def _fetch_stats(child: HttpAddress) -> bytes | None:
    """Return the reports of a child process, or None if it does not answer in time."""
    try:
        async with asyncio.timeout(CHILD_TIMEOUT_SECONDS):
            reply = await fetch(child, STATS, max_bytes=MAX_STATS_BYTES)
    except (OSError, UnreadableReply):  # a timeout is an OSError
        return None
    return reply.content if reply.status == HTTPStatus.OK else None


class LazyPage:
    """A page that needs the extra `metrics`. Without the extra, its answer is 404."""

    def __init__(self, build: Callable[[ModuleType], Page]) -> None:
        """Create the page.

        Args:
            build: Function that gets `bus.integrations.prometheus`, and returns the page.
        """
        self._build = build
        self._page: Page | None = None
        self._building = asyncio.Lock()

    async def __call__(self, accept: str) -> Response:
        """Import the library at the first request, and return the page's answer."""
        async with self._building:
            if self._page is None:
                try:
                    library = await _in_thread(lambda: import_module("bus.integrations.prometheus"))
                except ConfigurationError as error:
                    return text_response(HTTPStatus.NOT_FOUND, str(error))
                self._page = self._build(library)
        return await self._page(accept)


async def _in_thread(call: Callable[[], T]) -> T:
    return await call_in_daemon_thread(call, interrupt=lambda: None, name="metrics")
