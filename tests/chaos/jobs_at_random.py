"""The long form of the random programmes against each store."""

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from bus.messaging.store_address import StoreAddress
from bus.storage.memory.job_store import MemoryJobStore
from bus.storage.sqlalchemy.job_store import SqlJobStore
from tests.chaos.job_book import SetClock
from tests.chaos.programmes import Programme
from tests.databases import address_of, connected, create_tables, empty_tables, new_sqlite_file
from tests.postgres import PostgresCluster, find_programs

__all__ = ["IN_DATABASES", "IN_MEMORY", "jobs_at_random", "run_in_database", "run_in_memory"]

IN_MEMORY, IN_DATABASES = 10_000, 500
"""Programmes of the long form: in memory, and in each database."""


async def run_in_memory(seeds: range) -> None:
    """Run a programme for each seed on the store in memory."""
    for seed in seeds:
        clock = SetClock()
        await Programme(MemoryJobStore(clock=clock), clock, seed).run()


async def run_in_database(address: StoreAddress, seeds: range) -> None:
    """Run a programme for each seed in a database with tables."""
    async with connected(address) as database:
        for seed in seeds:
            clock = SetClock()
            await Programme(SqlJobStore(database, clock=clock), clock, seed).run()
            await database.write(empty_tables)


async def jobs_at_random(directory: Path) -> dict[str, object]:
    """Run the long form, and return its figures."""
    found: dict[str, object] = {}
    broken = 0
    try:
        await run_in_memory(range(IN_MEMORY))
        found["programmes in memory"] = IN_MEMORY
        async with databases(directory) as addresses:
            for address in addresses:
                await create_tables(address)
                await run_in_database(address, range(IN_DATABASES))
                found[f"programmes in {address.kind}"] = IN_DATABASES
    except AssertionError as error:
        print(f"  {error}", file=sys.stderr, flush=True)
        broken = 1
    return {**found, "broken promises": broken}


@asynccontextmanager
async def databases(directory: Path) -> AsyncIterator[list[StoreAddress]]:
    """Yield the addresses of empty databases. PostgreSQL is left out if it is not installed."""
    addresses = [new_sqlite_file(directory / "jobs.db")]
    programs = find_programs()
    if programs is None:
        yield addresses
        return
    cluster = PostgresCluster(programs)
    cluster.start()  # in the main thread: the server ends with the thread that starts it
    try:
        yield [*addresses, address_of(cluster.create_database())]
    finally:
        await asyncio.to_thread(cluster.stop)
