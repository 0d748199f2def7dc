"""The gauges of the rows in the store: jobs by state, and the oldest waiting job.

A query counts all rows of the store. It runs at most every 10 s, only while a reader asks for the
gauges, and never on the path of a message. Each instance has a query of its own.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Final

from bus.errors import BusError
from bus.messaging.jobs.states import JOB_STATES, JobState
from bus.messaging.ports.meter import Instrument
from bus.messaging.ports.store import Store
from bus.messaging.service_info import MAX_LABEL_SETS, Series
from bus.messaging.store_instruments import JOBS_OLDEST_WAITING, JOBS_ROWS, STORE_REACHABLE
from bus.messaging.supervision import run_forever
from bus.messaging.topology.names import queue_prefix, service_of

__all__ = ["MIN_SECONDS", "StoreRows"]

log = logging.getLogger("bus.store")

MIN_SECONDS: Final = 10.0
"""Minimum seconds between two queries."""
MAX_SHARE: Final = 0.05
"""Maximum share of the time in which a query of this process runs."""
QUERY_SECONDS: Final = 30.0
"""Maximum duration of a query. The store then counts as not reachable."""
MAX_AGE_SECONDS: Final = 120.0
"""Seconds after which the counted rows are not reported any more."""
MAX_QUEUES: Final = MAX_LABEL_SETS // len(JOB_STATES)
"""Maximum number of queues in the gauges."""


class StoreRows:
    """The last counted rows of a store."""

    def __init__(self, store: Store, *, clock: Callable[[], float]) -> None:
        """Create an object that has counted nothing.

        Args:
            store: The store.
            clock: Function that returns seconds since the epoch.
        """
        self._store, self._clock = store, clock
        self._wanted = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._counts: Sequence[tuple[str, JobState, int, float | None]] = ()
        self._counted_at: float | None = None
        self._is_reachable: bool | None = None
        self._queues: dict[str, None] = {}
        """The queues in the gauges. A queue without rows keeps its gauges, with the value 0."""
        self._blocks = 0
        self._task: asyncio.Task[None] | None = None

    @asynccontextmanager
    async def following(self, queues: Iterable[str]) -> AsyncIterator[None]:
        """Count the rows inside the block, while a reader asks for them.

        Args:
            queues: Work queues of the jobs that this process handles.
        """
        self._add_queues(queues)
        self._blocks += 1
        if self._task is None:
            self._loop = asyncio.get_running_loop()
            self._task = asyncio.create_task(
                run_forever(self._step, expected=(), on_error=_ignore), name="rows of the store"
            )
        try:
            yield
        finally:
            self._blocks -= 1
            if not self._blocks and self._task is not None:
                task, self._task, self._loop = self._task, None, None
                task.cancel()
                await asyncio.wait([task])

    def _add_queues(self, queues: Iterable[str]) -> None:
        for queue in queues:
            if len(self._queues) < MAX_QUEUES:
                self._queues.setdefault(queue)

    async def _step(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await self._wanted.wait()
            self._wanted.clear()
            began = loop.time()
            await self.count()
            seconds = loop.time() - began
            await asyncio.sleep(max(MIN_SECONDS, seconds / MAX_SHARE))

    async def count(self) -> None:
        """Count the rows now. If the store cannot be reached, keep the last numbers."""
        try:
            async with asyncio.timeout(QUERY_SECONDS):
                self._counts = await self._store.jobs.counts()
        except (BusError, TimeoutError) as error:
            if self._is_reachable is not False:
                log.debug("the rows of the store were not counted: %s", error)
            self._is_reachable = False
            return
        self._is_reachable, self._counted_at = True, self._clock()
        self._add_queues(sorted({queue for queue, *_ in self._counts}))

    # --- The series ---

    def series(self) -> Sequence[Series]:
        """Return the gauges, and let the rows be counted again soon. Any thread can call this."""
        loop = self._loop
        if loop is not None:
            with suppress(RuntimeError):  # the loop has ended
                loop.call_soon_threadsafe(self._wanted.set)
        now = self._clock()
        found = [*self._rows(now)]
        if self._is_reachable is not None and loop is not None:
            found.append(_gauge(STORE_REACHABLE, (), int(self._is_reachable), now))
        return found

    def _rows(self, now: float) -> Iterator[Series]:
        if self._counted_at is None or now - self._counted_at > MAX_AGE_SECONDS:
            return
        counts = {(queue, state): count for queue, state, count, _ in self._counts}
        earliest = {(queue, state): at for queue, state, _, at in self._counts}
        for queue in [*self._queues]:
            labels = _labels_of(queue)
            for state in JOB_STATES:
                yield _gauge(JOBS_ROWS, (*labels, state), counts.get((queue, state), 0), now)
            due = [earliest.get((queue, state)) for state in ("queued", "retrying")]
            seconds = max((now - at for at in due if at is not None), default=0.0)
            yield _gauge(JOBS_OLDEST_WAITING, labels, max(0.0, seconds), now)


def _labels_of(queue: str) -> tuple[str, str]:
    """Return operation and version of the jobs in a work queue."""
    service = service_of(queue)
    name, _, version = queue.removeprefix(queue_prefix(service, "jobs")).rpartition(".v")
    return f"{service}.{name}", version


def _gauge(instrument: Instrument, labels: tuple[str, ...], value: float, now: float) -> Series:
    named = dict(zip(instrument.labels, labels, strict=True))
    return Series(name=instrument.name, labels=named, value=value, last=int(now * 1000))


def _ignore(_error: BaseException) -> None:
    """Do nothing, because `run_forever` has already logged the error."""
