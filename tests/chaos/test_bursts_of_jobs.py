"""Bursts of durable jobs through several worker processes: each handle ends right."""

from pathlib import Path

import pytest

from bus.storage.sqlalchemy.sqlite_file import create_sqlite_file
from tests.chaos.jobs.burst import Burst, run_burst
from tests.chaos.jobs.crash_scene import virtual_host
from tests.chaos.jobs.store_outage import Outage, burst_with_outage, create_tables_of_burst
from tests.chaos.node import ChaosNode
from tests.databases import address_of
from tests.postgres import PostgresCluster

pytestmark = pytest.mark.timeout(300)
JOBS = 200


async def test_four_worker_processes_share_a_file_of_sqlite_and_each_handle_ends_right(
    chaos_node: ChaosNode, tmp_path: Path
) -> None:
    store = f"sqlite:///{tmp_path}/jobs.db"
    create_sqlite_file(address_of(store))
    await create_tables_of_burst(store)
    burst = Burst(jobs=JOBS, clients=4, workers=4, failing_percent=5)
    async with virtual_host(chaos_node) as url:
        result = await run_burst(burst, url=url, store=store)
    assert result.wrong == []
    assert (result.right, result.repeated) == (JOBS, JOBS // 20)


@pytest.mark.parametrize("is_crash", [True, False])
async def test_postgresql_is_restarted_under_load_and_each_handle_ends_right(
    chaos_node: ChaosNode, private_postgres: PostgresCluster, is_crash: bool
) -> None:
    burst = Burst(jobs=JOBS, clients=2, workers=2, failing_percent=5)
    outage = Outage(seconds=0.5, is_crash=is_crash)
    result = await burst_with_outage(burst, outage, node=chaos_node, cluster=private_postgres)
    assert result.burst.wrong == []
    assert (result.burst.right, result.burst.repeated) == (JOBS, JOBS // 20)
    assert result.ended_before < JOBS, "all jobs had ended before the outage"
