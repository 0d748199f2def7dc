"""Retries: exactly as often as the policy says, on time, and into dead letters that stay."""

import random
from collections import Counter
from pathlib import Path

import aiormq
import pytest

from bus.topology import TIERS, UNLIMITED_DELIVERIES, tier_for
from tests.chaos.campaign import at_rest
from tests.chaos.contracts import SERVICE
from tests.chaos.journal import DELIVERED, SENT, Entry
from tests.chaos.node import ChaosNode
from tests.chaos.scene import Scene
from tests.chaos.sender import Order, messages
from tests.polling import until

pytestmark = pytest.mark.timeout(240)
ATTEMPTS, FIRST, FACTOR = 3, 1, 5
"""Waits of one and of five seconds, in one service and at the same time."""
GENEROUS = 10.0
"""Seconds that a retry may be late here, where other tests have the machine as well; `make chaos` is strict."""


async def test_every_message_is_tried_exactly_as_often_as_its_policy_says(chaos_node: ChaosNode, tmp_path: Path) -> None:
    order = Order(count=1000, rate=400, seconds=0, failing=0.8, fail=(1, 2, 9), hopeless=0.05, seed=random.randrange(10_000))
    environment = {"CHAOS_RETRY": f"{ATTEMPTS} {FIRST} {FACTOR}"}
    async with Scene(chaos_node, tmp_path, environment=environment) as scene:
        await scene.add_worker()
        sender = await scene.start_sender(order)
        sender.enough()
        assert await sender.ended() == 0, sender.said()
        scene.sends.news()
        await at_rest(scene)
        letters = {letter.number: letter.headers for letter in await scene.dead_letters()}

    sent = {entry.number for entry in scene.sends.entries if entry.mark == SENT}
    wanted = dict(zip(sorted(sent), map(attempts_of, messages(order)), strict=False))
    tried = Counter(entry.number for entry in scene.work.entries if entry.mark == DELIVERED)
    assert tried == wanted
    assert letters.keys() == {number for number, message in zip(sorted(sent), messages(order), strict=False) if is_doomed(message)}
    assert all(headers["dead-attempts"] == wanted[number] for number, headers in letters.items())
    copied = {name for headers in letters.values() for name in headers if "death" in name}
    assert not copied, f"the broker's headers came along: {copied}"
    late = lateness(scene.work.entries)
    print(f"retries: {len(late)} of 1 s and 5 s; late by {late[len(late) // 2]:.3f} s (median), {late[int(len(late) * 0.99)]:.3f} s (p99)")
    assert late[int(len(late) * 0.99)] < GENEROUS


def attempts_of(message: object) -> int:
    """What the policy allows of it."""
    if getattr(message, "hopeless", False):
        return 1
    return min(ATTEMPTS, int(getattr(message, "failures", 0)) + 1)


def is_doomed(message: object) -> bool:
    return bool(getattr(message, "hopeless", False)) or int(getattr(message, "failures", 0)) >= ATTEMPTS


def lateness(work: list[Entry]) -> list[float]:
    """Seconds, sorted: how much later than its tier each attempt after the first was delivered."""
    deliveries = {(entry.number, int(entry.detail.split()[1])): entry.at for entry in work if entry.mark == DELIVERED}
    found = []
    for (number, attempt), at in deliveries.items():
        before = deliveries.get((number, attempt - 1))
        if before is not None:
            found.append(at - before - TIERS[tier_for(FIRST * FACTOR ** (attempt - 2))])
    return sorted(found)


async def test_a_dead_letter_survives_being_looked_at(chaos_node: ChaosNode, tmp_path: Path) -> None:
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
                assert limit >= UNLIMITED_DELIVERIES, f"delivery limit of {queue['name']}: {limit}; 4.x deletes what was looked at as often"


async def until_holds(channel: aiormq.abc.AbstractChannel, name: str, count: int) -> None:
    """A passive declare is the broker's own count."""
    found = -1
    for _ in range(500):
        found = (await channel.queue_declare(name, passive=True)).message_count or 0
        if found == count:
            return
    await until(lambda: found == count, f"{count} messages in {name}", seconds=0)
