"""Queues that an operator deletes.

The broker cancels their consumers, and the service must create them again.
"""

import asyncio
from pathlib import Path

import pytest

from tests.chaos.campaign import at_rest
from tests.chaos.faults import EVENTS, JOBS
from tests.chaos.journal import ACKED, EFFECT
from tests.chaos.node import ChaosNode
from tests.chaos.scene import Scene
from tests.chaos.sender import Order

pytestmark = pytest.mark.timeout(300)
PATIENCE = 30.0


async def test_a_queue_that_was_deleted_is_served_again(
    chaos_node: ChaosNode, tmp_path: Path
) -> None:
    async with Scene(chaos_node, tmp_path) as scene:
        await scene.add_worker()
        await sent(scene, Order(count=100, failing=0, hopeless=0))
        for queue in (JOBS, EVENTS):
            await scene.api("DELETE", f"queues/{{}}/{queue}")
        assert await consumed_again(scene), "not served: the deleted queues were not created again"
        await sent(scene, Order(count=100, first=100, failing=0, hopeless=0))
    acked = {entry.number for entry in scene.sends.entries if entry.mark == ACKED}
    done = {entry.number for entry in scene.work.entries if entry.mark == EFFECT}
    assert acked == done == set(range(200)), f"not served: {200 - len(done)}"


async def sent(scene: Scene, order: Order) -> None:
    sender = await scene.start_sender(order)
    sender.enough()
    assert await sender.ended() == 0, sender.said()
    scene.sends.news()
    await at_rest(scene)


async def consumed_again(scene: Scene) -> bool:
    """Return True if both queues have a consumer before the timeout."""
    try:
        async with asyncio.timeout(PATIENCE):
            while {queue["queue"]["name"] for queue in await scene.api("GET", "consumers/{}")} < {
                JOBS,
                EVENTS,
            }:
                await asyncio.sleep(0.1)
    except TimeoutError:
        return False
    return True
