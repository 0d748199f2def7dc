"""Durable jobs of several worker processes while PostgreSQL is stopped and started again."""

import asyncio
import time
from dataclasses import dataclass
from typing import Any, Final

from bus.operations.brokers.private_node import PrivateNode
from bus.storage.sqlalchemy.upgrade import upgrade
from tests.chaos.jobs.burst import Burst, BurstResult, run_burst
from tests.chaos.jobs.contracts import SERVICE
from tests.chaos.jobs.crash_scene import virtual_host
from tests.databases import address_of, connected
from tests.postgres import PostgresCluster, find_programs

__all__ = ["Outage", "OutageResult", "burst_with_outage", "create_tables_of_burst", "outage_exam"]

LONG_JOBS: Final = 10_000
LONG_SECONDS: Final = 30.0
"""Jobs and seconds of the outage in the long form."""
PATIENCE: Final = 120.0
POLL: Final = 0.1
ENDED: Final = "SELECT count(*) FROM bus_jobs WHERE state = 'succeeded'"


@dataclass(frozen=True, kw_only=True)
class Outage:
    """The outage of the database during a burst."""

    seconds: float
    is_crash: bool
    """True for a crash of the database. False for a shutdown by its operator."""


@dataclass(frozen=True, kw_only=True)
class OutageResult:
    """The ends of a burst with an outage."""

    burst: BurstResult
    ended_before: int
    """Number of jobs that had succeeded when the outage began."""
    recovery: float
    """Seconds from the start of the database to the next end of a job."""


async def create_tables_of_burst(url: str) -> None:
    """Create the tables of the store for the workers of bursts."""
    async with connected(address_of(url)) as database:
        await upgrade(database, SERVICE)


async def burst_with_outage(
    burst: Burst, outage: Outage, *, node: PrivateNode, cluster: PostgresCluster
) -> OutageResult:
    """Run a burst, stop the database when a tenth of the jobs has ended, and start it again.

    The worker processes are not restarted.
    """
    store = await asyncio.to_thread(cluster.create_database)
    await create_tables_of_burst(store)
    name = store.rpartition("/")[2]

    async def until_more(number: int) -> int:
        """Wait until more than `number` jobs have succeeded, and return their number."""
        async with asyncio.timeout(PATIENCE):
            while (found := int(await asyncio.to_thread(cluster.execute, ENDED, name))) <= number:
                await asyncio.sleep(POLL)
        return found

    async with virtual_host(node) as url:
        running = asyncio.create_task(run_burst(burst, url=url, store=store))
        try:
            before = await until_more(burst.jobs // 10)
            await asyncio.to_thread(cluster.kill if outage.is_crash else cluster.shut_down)
            await asyncio.sleep(outage.seconds)
            cluster.start()  # in the main thread: the server ends with the thread that starts it
            began = time.monotonic()
            await until_more(before)
            recovery = time.monotonic() - began
            result = await running
        finally:
            running.cancel()
            await asyncio.wait([running])
    return OutageResult(burst=result, ended_before=before, recovery=round(recovery, 2))


async def outage_exam(node: PrivateNode) -> dict[str, Any]:
    """Run a long burst with an outage of 30 s, and return the figures for the page."""
    programs = find_programs()
    assert programs is not None, "PostgreSQL is not installed: no program `initdb` was found."
    cluster = PostgresCluster(programs)
    cluster.start()  # in the main thread: the server ends with the thread that starts it
    burst = Burst(jobs=LONG_JOBS)
    outage = Outage(seconds=LONG_SECONDS, is_crash=True)
    try:
        found = await burst_with_outage(burst, outage, node=node, cluster=cluster)
    finally:
        await asyncio.to_thread(cluster.stop)
    return {
        "jobs": burst.jobs,
        "ended before the outage": found.ended_before,
        "right": found.burst.right,
        "wrong": len(found.burst.wrong),
        "first end after the return": found.recovery,
    }
