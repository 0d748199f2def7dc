"""The page `/metrics`, which is created in a thread, so that the event loop goes on."""

import asyncio
from collections.abc import Awaitable, Callable

from prometheus_client import CollectorRegistry

from bus.integrations.prometheus.exposition import CONTENT_TYPES, Format, choose_format, render
from bus.messaging.blocking_calls import call_in_daemon_thread
from bus.operations.http_server import Response

__all__ = ["MetricsPage"]

Refresh = Callable[[], Awaitable[Callable[[], object] | None]]
"""Function that fetches new values. The function that it returns runs in the thread."""


class MetricsPage:
    """A `Page` with the metrics of a registry.

    At most one answer is created at a time. Requests that arrive before it is ready receive it,
    too. So many scrapers, or one that hangs, cost no more than one scraper.
    """

    def __init__(self, registry: CollectorRegistry, refresh: Refresh | None = None) -> None:
        """Create the page.

        Args:
            registry: The collectors. Each of them is called in a thread.
            refresh: Function that runs on the event loop before each answer is created.
        """
        self._registry = registry
        self._refresh = refresh
        self._running: dict[Format, asyncio.Task[bytes]] = {}
        self._turn = asyncio.Lock()

    async def __call__(self, accept: str) -> Response:
        """Return the metrics in the format that the scraper accepts."""
        chosen = choose_format(accept)
        task = self._running.get(chosen)
        if task is None:
            task = self._running[chosen] = asyncio.create_task(self._create(chosen))
            task.add_done_callback(lambda done: self._end(chosen, done))
        # A scraper that disconnects must not end the task for the others.
        content = await asyncio.shield(task)
        return Response(content=content, content_type=CONTENT_TYPES[chosen])

    def _end(self, chosen: Format, task: "asyncio.Task[bytes]") -> None:
        del self._running[chosen]
        if not task.cancelled():
            # If every scraper has disconnected, asyncio would log the error as not retrieved.
            task.exception()

    async def _create(self, chosen: Format) -> bytes:
        async with self._turn:
            update = await self._refresh() if self._refresh is not None else None

            def create() -> bytes:
                if update is not None:
                    update()
                return render(self._registry, chosen)

            return await call_in_daemon_thread(create, interrupt=_do_nothing, name="metrics")


def _do_nothing() -> None:
    """Let the thread finish, although no scraper waits for its answer."""
