"""A cluster of three nodes: its queue leader is killed, cut off and paused; no message is lost."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from bus.operations.brokers.installation import find_installation
from bus.operations.brokers.select import INSTALL
from tests.chaos.campaign import broken
from tests.chaos.cluster import ROUNDS, Cluster, rounds
from tests.chaos.table import PROPERTY, row
from tests.chaos.test_faults import PATIENCE, SEED

MESSAGES = 1700
"""Messages of each of the three rounds."""


@pytest.mark.timeout(900)
async def test_a_cluster_that_loses_its_leader_loses_no_message(
    tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    installation = find_installation(os.environ)
    assert installation, INSTALL
    async with Cluster(installation) as cluster:
        async for each in rounds(
            cluster, tmp_path, ROUNDS, messages=MESSAGES, seed=SEED, timeout=PATIENCE
        ):
            record_property(PROPERTY, row(each.played))
            print(f"{each.fault.title}: no confirm for {each.gap:.1f} s")
            why = broken(each.played, each.fault)
            assert not why, "; ".join(why)
