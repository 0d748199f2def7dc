"""Retries follow the policy exactly and on time, and end in dead letters that stay."""

import asyncio
import random
from pathlib import Path

import aiormq
import pytest

from bus.messaging.topology.declarations import UNLIMITED_DELIVERIES
from tests.chaos.contracts import SERVICE
from tests.chaos.node import ChaosNode
from tests.chaos.retrying import Policy, percentile, tried
from tests.chaos.scene import Scene
from tests.chaos.sender import Order

pytestmark = pytest.mark.timeout(300)
POLICY = Policy(attempts=3, first=1, factor=5)
"""Policy with waits of one and five seconds, in one service at the same time."""
PATIENCE = 60.0
EARLY = 0.05
"""Seconds by which two clocks may differ; a retry is never early."""


async def test_every_message_is_tried_exactly_as_often_as_its_policy_says(
    chaos_node: ChaosNode, tmp_path: Path
) -> None:
    order = Order(
        count=1000,
        rate=400,
        seconds=0,
        failing=0.8,
        fail=(1, 2, 9),
        hopeless=0.05,
        seed=random.randrange(10_000),
    )
    tries = await tried(chaos_node, tmp_path, order, POLICY)
    assert tries.counted == tries.wanted
    assert tries.letters.keys() == tries.doomed
    assert all(
        headers["dead-attempts"] == tries.wanted[number]
        for number, headers in tries.letters.items()
    )
    copied = {name for headers in tries.letters.values() for name in headers if "death" in name}
    assert not copied, f"the broker's headers came along: {copied}"
    # Only `make chaos` limits these delays, because it needs a machine of its own.
    median, most = (
        percentile(tries.late, 0.5),
        percentile(tries.late, 0.99),
    )
    print(
        f"{len(tries.late)} retries after 1 s and 5 s: "
        f"late by {median:.3f} s (median), {most:.3f} s (p99)"
    )
    assert tries.late[0] > -EARLY


async def test_a_dead_letter_survives_being_looked_at(
    chaos_node: ChaosNode, tmp_path: Path
) -> None:
    async with Scene(chaos_node, tmp_path) as scene:
        await scene.add_worker()
        sender = await scene.start_sender(Order(count=4, kinds="jobs", hopeless=1))
        sender.enough()
        assert await sender.ended() == 0, sender.said()
        name = f"{SERVICE}.jobs.work.v1.dead"
        async with await aiormq.connect(scene.url) as connection:
            channel = await connection.channel()
            await until_holds(channel, name, 4)
            for _ in range(50):
                found = [await channel.basic_get(name) for _ in range(4)]
                assert all(message.delivery_tag for message in found), "a dead letter is gone"
                await channel.basic_nack(0, multiple=True, requeue=True)
            await until_holds(channel, name, 4)
        for queue in await scene.api("GET", "queues/{}"):
            if ".dead" in queue["name"]:
                limit = queue["arguments"].get("x-delivery-limit", 0)
                assert limit >= UNLIMITED_DELIVERIES, (
                    f"delivery limit of {queue['name']}: {limit}; "
                    "4.x deletes a dead letter after that number of reads"
                )


async def until_holds(channel: aiormq.abc.AbstractChannel, name: str, count: int) -> None:
    """Wait until a passive declare, which is the broker's own count, reports this number."""
    async with asyncio.timeout(PATIENCE):
        while (await channel.queue_declare(name, passive=True)).message_count != count:
            await asyncio.sleep(0.02)
