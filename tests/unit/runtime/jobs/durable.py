"""Connected buses of services with a store, on the broker in memory and in virtual time."""

import asyncio
import functools
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from bus.messaging.jobs.records import JobKey, JobRecord
from bus.messaging.jobs.states import JobState
from bus.messaging.ports.store import Store
from bus.runtime.bus import Bus
from bus.runtime.router import Router
from bus.storage.memory.store import MemoryStore
from bus.testing import MemoryBroker, MemoryTransport, VirtualLoop, wall_clock
from bus.testing.explicit_settings import ExplicitSettings

__all__ = ["Durable", "durable"]

TURNS = 400


class Durable:
    """One broker, and one store that the instances of one service share."""

    def __init__(self) -> None:
        self.broker = MemoryBroker(clock=wall_clock)
        self.store: Any = MemoryStore(clock=wall_clock)
        self._open = AsyncExitStack()

    def bus(self, service: str, *, store: Store | None = None, **settings: Any) -> Bus:
        """Return a bus that is not open yet."""
        chosen = ExplicitSettings(**{"auth": "off", "discovery": "off", **settings})
        transport = MemoryTransport(self.broker, clock=wall_clock)
        return Bus(service, settings=chosen, transport=transport, store=store, clock=wall_clock)

    async def client(self, service: str = "desk") -> Bus:
        """Return an open bus without a store, which submits jobs."""
        return await self._open.enter_async_context(self.bus(service))

    async def serve(self, router: Router, **settings: Any) -> Bus:
        """Serve a router with the store until the end of the test."""
        return await self._open.enter_async_context(self.serving(router, **settings))

    @asynccontextmanager
    async def serving(
        self, router: Router, *, store: Store | None = None, **settings: Any
    ) -> AsyncIterator[Bus]:
        """Serve a router with the store inside the block."""
        async with (
            self.bus(router.name, store=store or self.store, **settings) as bus,
            bus.serving(router),
        ):
            yield bus

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
