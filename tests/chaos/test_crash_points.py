"""Worker processes are killed at each step of a durable job: one effect, and nothing is lost."""

from pathlib import Path

import pytest

from tests.chaos.jobs.crash_points import POINTS
from tests.chaos.jobs.crash_scene import CrashScene, databases_of
from tests.chaos.jobs.mortal_workers import MortalWorkers
from tests.chaos.node import ChaosNode
from tests.postgres import PostgresCluster

PROCESSES = 3
"""Number of processes that are killed at each point."""
pytestmark = pytest.mark.timeout(300)


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
async def test_a_process_that_is_killed_at_any_step_of_a_job_leaves_one_effect_and_loses_nothing(
    chaos_node: ChaosNode, tmp_path: Path, request: pytest.FixtureRequest, kind: str
) -> None:
    cluster: PostgresCluster | None = None
    if kind == "postgresql":
        cluster = request.getfixturevalue("postgres")
    databases = await databases_of(tmp_path, cluster)
    async with MortalWorkers() as workers:
        figures = await CrashScene(chaos_node, workers).run(
            POINTS, databases[kind], rounds=1, processes=PROCESSES
        )
    assert [each.broken for each in figures.values()] == [""] * len(POINTS)
    assert {each.effects - each.jobs for each in figures.values()} == {0}
