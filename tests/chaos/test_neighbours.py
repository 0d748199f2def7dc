"""Failures of one service do not affect another: each service has retry tiers of its own."""

from pathlib import Path

import pytest

from tests.chaos.neighbours import STATES, retried_beside
from tests.chaos.node import ChaosNode
from tests.chaos.retrying import percentile

pytestmark = pytest.mark.timeout(300)
PATIENCE = 45.0
"""Seconds to wait for retries of one second.

A retry behind another service's full queue would never be in time.
"""


@pytest.mark.parametrize("state", STATES)
async def test_a_services_retries_come_back_on_time_while_anothers_queue_is(
    state: str, chaos_node: ChaosNode, tmp_path: Path
) -> None:
    seen = await retried_beside(
        chaos_node, tmp_path, state, in_trouble=50, rate=200, patience=PATIENCE
    )
    assert not seen.pending, (
        f"late: {seen.pending} of {seen.events} retries did not come back "
        f"while another's queue was {state}"
    )
    assert seen.in_trouble >= 50
    print(
        f"beside a service whose queue is {state}: "
        f"late by {percentile(seen.late, 0.5):.3f} s (median), {seen.late[-1]:.3f} s (most)"
    )
