"""Connected buses of services with a store, on the broker in memory and in virtual time."""

import asyncio
import functools
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from bus.errors import Unavailable
from bus.messaging.jobs.records import JobKey, JobRecord
from bus.messaging.jobs.states import JobState
from bus.messaging.ports.store import Store
from bus.runtime.bus import Bus
from bus.runtime.router import Router
from bus.storage.memory.store import MemoryStore
from bus.testing import MemoryBroker, MemoryTransport, VirtualLoop, wall_clock
from bus.testing.explicit_settings import ExplicitSettings

__all__ = ["CALLS", "Durable", "JobCalls", "WatchedStore", "durable"]

TURNS = 400


class JobCalls:
    """The job store of one instance, with its calls counted and some of them refused."""

    def __init__(self, jobs: Any) -> None:
        self.jobs = jobs
        self.calls: list[tuple[str, Any]] = []
        """The name of each call, and its first argument or its queue."""
        self.refused: set[str] = set()
        """Names of calls that find the store away."""
        self.lost_answers: set[str] = set()
        """Names of calls that have their effect, and then find the store away."""

    def count(self, name: str) -> int:
        """Return the number of calls."""
        return sum(each == name for each, _ in self.calls)

    def __getattr__(self, name: str) -> Any:
        method = getattr(self.jobs, name)

        @functools.wraps(method)
        async def call(*args: Any, **options: Any) -> Any:
            self.calls.append((name, args[0] if args else None))
            if name in self.refused:
                await asyncio.sleep(0.01)
                raise Unavailable("the database cannot be reached")
            result = await method(*args, **options)
            if name in self.lost_answers:
                raise Unavailable("the connection to the database was lost")
            return result

        return call


class WatchedStore:
    """The store as one instance reaches it."""

    def __init__(self, store: Any) -> None:
        self._store = store
        self.jobs = JobCalls(store.jobs)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)


CALLS = frozenset({"record", "claim", "renew", "report", "end"})
"""The calls that a worker makes."""


class Durable:
    """One broker, and one store that the instances of one service share."""

    def __init__(self) -> None:
        self.broker = MemoryBroker(clock=wall_clock)
        self.store: Any = MemoryStore(clock=wall_clock)
        self._open = AsyncExitStack()

    def bus(self, service: str, *, store: Store | None = None, **settings: Any) -> Bus:
        """Return a bus that is not open yet."""
        chosen = ExplicitSettings(**{"auth": "off", **settings})
        transport = MemoryTransport(self.broker, clock=wall_clock)
        return Bus(service, settings=chosen, transport=transport, store=store, clock=wall_clock)

    async def client(self, service: str = "desk") -> Bus:
        """Return an open bus without a store, which submits jobs."""
        return await self._open.enter_async_context(self.bus(service))

    async def serve(self, router: Router, *, store: Any = None, **settings: Any) -> Bus:
        """Serve a router with the store until the end of the test."""
        return await self._open.enter_async_context(self.serving(router, store=store, **settings))

    @asynccontextmanager
    async def serving(
        self, router: Router, *, store: Any = None, **settings: Any
    ) -> AsyncIterator[Bus]:
        """Serve a router with the store inside the block."""
        async with (
            self.bus(router.name, store=store or self.store, **settings) as bus,
            bus.serving(router),
        ):
            yield bus

    def watched(self) -> WatchedStore:
        """Return the store as one instance reaches it, with counted calls."""
        return WatchedStore(self.store)

    async def find(self, job_id: str, submitter: str = "desk") -> JobRecord | None:
        """Return the row of a job."""
        found: JobRecord | None = await self.store.jobs.find(JobKey(submitter, job_id))
        return found

    async def state(self, job_id: str) -> JobState | None:
        """Return the state of a job."""
        record = await self.find(job_id)
        return None if record is None else record.state

    async def row(self, job_id: str, state: JobState) -> JobRecord:
        """Wait until a job has a state, and return its row."""
        for _ in range(TURNS):
            record = await self.find(job_id)
            if record is not None and record.state == state:
                return record
            await asyncio.sleep(0.25)
        raise AssertionError(f"the job is {await self.state(job_id)} and not {state}")

    async def close(self) -> None:
        """Close all buses."""
        await self._open.aclose()


def durable(test: Callable[[Durable], Coroutine[Any, Any, None]]) -> Callable[[], None]:
    """Run a test in virtual time, so that leases and retries take no time."""

    @functools.wraps(test)
    def run() -> None:
        async def with_services() -> None:
            loop = asyncio.get_running_loop()
            assert isinstance(loop, VirtualLoop)
            loop.skip_waits()
            world = Durable()
            try:
                await test(world)
            finally:
                await world.close()

        with asyncio.Runner(loop_factory=VirtualLoop) as runner:
            runner.run(with_services())

    del run.__wrapped__  # pytest would take the parameter for a fixture
    return run
