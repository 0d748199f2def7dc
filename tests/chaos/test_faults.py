"""The ledger under each class of faults, in the short form."""

import os
import secrets
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.chaos.campaign import Size, broken, play
from tests.chaos.faults import FAULTS, Fault
from tests.chaos.node import ChaosNode
from tests.chaos.table import PROPERTY, row

pytestmark = pytest.mark.timeout(600)
PATIENCE = 150
"""Seconds for each send while other tests use the machine.

A broker that starts in 5 s may then need 20 s.
"""
SEED = int(os.environ.get("CHAOS_SEED") or secrets.randbelow(10_000))


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
async def test_nothing_is_lost_and_nothing_unsent_is_done_under(
    fault: Fault,
    chaos_node: ChaosNode,
    tmp_path: Path,
    record_property: Callable[[str, object], None],
) -> None:
    size = Size(messages=fault.messages, faults=fault.faults, seed=SEED, timeout=PATIENCE)
    played = await play(fault, size, chaos_node, tmp_path)
    record_property(PROPERTY, row(played))
    why = broken(played, fault)
    assert not why, "; ".join(why)
