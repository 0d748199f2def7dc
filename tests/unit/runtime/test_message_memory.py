"""Tests of the time since which an instance remembers its messages."""

import pytest

from bus.testing import MemoryBuses


@pytest.mark.parametrize(("maximum", "is_from_start"), [(10, True), (0, False)])
async def test_an_instance_without_a_memory_does_not_claim_to_remember_its_start(
    maximum: int, is_from_start: bool
) -> None:
    now = 1_796_000_000.0
    async with MemoryBuses(clock=lambda: now) as buses:
        bus = await buses.bus("library", discovery="on", remembered_messages=maximum)
        now += 60
        found = bus._report.find("any")
    assert found.since - found.started == (0 if is_from_start else 60_000)
    assert found.remembered == 0
