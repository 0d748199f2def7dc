"""Three nodes, one broker: the node that leads the queue is killed, cut off and paused, and nothing is lost."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from bus.brokers.choice import INSTALL
from bus.brokers.installation import find_installation
from tests.chaos.campaign import Size, broken, play_in
from tests.chaos.cluster import Balancer, Cluster, faults_of, write_gap
from tests.chaos.scene import Scene
from tests.chaos.table import PROPERTY, row
from tests.chaos.test_faults import SEED

MESSAGES = 1700
"""A round; there are three."""


@pytest.mark.timeout(600)
async def test_a_cluster_that_loses_its_leader_loses_no_message(tmp_path: Path, record_property: Callable[[str, object], None]) -> None:
    installation = find_installation(os.environ)
    assert installation, INSTALL
    async with Cluster(installation) as cluster:
        for name, fault in faults_of(cluster).items():
            directory = tmp_path / name
            directory.mkdir()

            def way() -> Balancer:
                return Balancer([node.port for node in cluster.nodes])

            async with Scene(cluster.nodes[0], directory, environment=fault.environment, ways=way) as scene:
                played = await play_in(scene, fault, Size(messages=MESSAGES, faults=1, seed=SEED))
                record_property(PROPERTY, row(played))
                print(f"{fault.title}: no confirm for {write_gap(scene.sends.entries):.1f} s")
            why = broken(played, fault)
            assert not why, "; ".join(why)
