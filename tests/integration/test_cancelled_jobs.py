"""Cancellation of jobs whose workers are processes, with RabbitMQ and each database."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from bus import Bus, Cancelled
from bus.operations.brokers.broker import Broker
from bus.storage.sqlalchemy.sqlite_file import create_sqlite_file
from tests.chaos.jobs.patient import Wait
from tests.conformance.world import until
from tests.integration.ledger import Place
from tests.integration.store.conftest import address_of
from tests.integration.store.test_open import create

START = 60.0


class Worker:
    """One process of the service, and the lines that it has printed."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.lines: list[str] = []

    async def reads(self, line: str) -> None:
        """Wait until the process has printed a line."""
        stream = self.process.stdout
        assert stream is not None
        while line not in self.lines:
            read = await asyncio.wait_for(stream.readline(), START)
            assert read, f"the worker has ended before it printed {line!r}: {self.lines}"
            self.lines.append(read.decode().strip())


@asynccontextmanager
async def worker(place: Place, store: str) -> AsyncIterator[Worker]:
    """Run a worker process inside the block."""
    environment = {
        **os.environ,
        "BUS_URL": place.url,
        "BUS_STORE": store,
        "BUS_AUTH": "off",
        "BUS_JOB_LEASE": "2",
    }
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.chaos.jobs.patient"),
        env=environment,
        stdout=asyncio.subprocess.PIPE,
    )
    started = Worker(process)
    try:
        await started.reads("ready")
        yield started
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


@pytest.fixture(params=["sqlite", "postgresql"])
async def store(request: pytest.FixtureRequest, tmp_path: object) -> str:
    """Return the URL of a store with its tables."""
    if request.param == "postgresql":
        url = str(request.getfixturevalue("postgres_url"))
    else:
        url = f"sqlite:///{tmp_path}/jobs.db"
        create_sqlite_file(address_of(url))
    await create(url, "patient")
    return url


@pytest.fixture
def place(shared_broker: Broker, vhost_url: str) -> Place:
    """Return a virtual host of the shared broker."""
    return Place(shared_broker, vhost_url)


async def test_a_job_is_cancelled_while_it_waits_runs_drains_and_after_its_worker_was_killed(
    place: Place, store: str
) -> None:
    async with Bus("desk", settings=place.settings) as desk, worker(place, store) as first:
        running, queued = await desk.submit(Wait(number=1)), await desk.submit(Wait(number=2))
        await first.reads("running 1")

        async def is_queued() -> bool:
            return (await queued.status()).state == "queued"

        await until(is_queued, "a recorded job")
        assert (await queued.cancel(reason="not needed")).state == "cancelled"
        await running.cancel(reason="not needed")
        await first.reads("told 1")
        with pytest.raises(Cancelled, match="cancelled by desk: not needed"):
            await running.result(timeout=30)
        # The worker drains: it has SIGTERM, and its handler still runs.
        draining = await desk.submit(Wait(number=3))
        await first.reads("running 3")
        other = desk.job(Wait, draining.id)
        async with worker(place, store) as second:
            first.process.terminate()
            await first.reads("stopping")
            await other.cancel(reason="not needed")
            await first.reads("told 3")
            assert await asyncio.wait_for(first.process.wait(), 30) == 0
            assert (await other.status()).state == "cancelled"
            # The worker is away: it is killed, and the request is written after that.
            lost = await desk.submit(Wait(number=4))
            await second.reads("running 4")
            async with worker(place, store) as third:
                second.process.kill()
                await second.process.wait()
                assert (await lost.cancel(reason="not needed")).state == "running"

                async def is_cancelled() -> bool:
                    return (await lost.status()).state == "cancelled"

                await until(is_cancelled, "a cancelled job after the lease of its worker")
                assert third.lines == ["ready"]
        assert "running 2" not in first.lines + second.lines + third.lines
