"""Invalid messages are refused and dead-lettered with a reason, and affect no other message."""

from pathlib import Path

import pytest

from tests.chaos.node import ChaosNode
from tests.chaos.poison import fuzzed, through_the_broker

DECODED, SENT = 20_000, 2_000


def test_whatever_comes_is_read_or_refused() -> None:
    found = fuzzed(DECODED, seed=7)
    print(f"poison: {found}")
    assert 0 < found["refused"] < DECODED, (
        "the fuzzing makes only what is good, or only what is bad"
    )


@pytest.mark.timeout(240)
async def test_every_poisoned_message_ends_among_the_dead_letters_with_a_reason(
    chaos_node: ChaosNode, tmp_path: Path
) -> None:
    found = await through_the_broker(chaos_node, tmp_path, SENT)
    assert found == {"sent": SENT, "dead": SENT, "with a reason": SENT, "restarts": 0}
