"""Random programmes against each store; `make chaos` runs many more of them."""

import random

import pytest

from bus.messaging.store_address import StoreAddress
from bus.storage.memory.job_rows import JobRow
from bus.storage.sqlalchemy.database import Database
from tests.chaos.jobs_at_random import run_in_database, run_in_memory

IN_MEMORY, IN_DATABASES = 200, 4


def seeds(count: int) -> range:
    """Return seeds that differ from run to run. A failure shows its own."""
    first = random.randrange(1_000_000)
    return range(first, first + count)


async def test_no_programme_in_memory_breaks_a_promise() -> None:
    await run_in_memory(seeds(IN_MEMORY))


async def test_no_programme_in_a_database_breaks_a_promise(
    database: Database, address: StoreAddress
) -> None:
    await run_in_database(address, seeds(IN_DATABASES))


async def test_a_store_that_accepts_late_writes_is_found_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def runs(self: JobRow, token: int) -> bool:
        return self.record.state == "running"  # whichever token has its attempt

    monkeypatch.setattr(JobRow, "runs_with", runs)
    with pytest.raises(AssertionError, match=r"seed \d"):
        await run_in_memory(range(50))


async def test_a_store_that_gives_a_job_to_two_workers_is_found_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("bus.storage.memory.job_rows.JobRow.renew", lambda *_: None)
    with pytest.raises(AssertionError, match=r"seed \d"):
        await run_in_memory(range(50))  # a renewed lease expires too early
