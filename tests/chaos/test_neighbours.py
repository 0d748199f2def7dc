"""One service's trouble is not another's: each has retry tiers of its own."""

import signal
import time
from pathlib import Path

import pytest

from bus.contract import contract_of
from bus.topology import event_queue
from tests.chaos.contracts import SERVICE, Happened
from tests.chaos.journal import ACKED, DELIVERED, Tail
from tests.chaos.node import ChaosNode
from tests.chaos.scene import Scene
from tests.chaos.sender import Order
from tests.polling import until

pytestmark = pytest.mark.timeout(300)
NEIGHBOUR = "neighbour"
QUEUE = event_queue(SERVICE, contract_of(Happened))
EVENTS = 200
PATIENCE = 45.0
"""Seconds for retries of one second: what waits behind another service's full queue is late for ever."""


@pytest.mark.parametrize("state", ["full", "deleted", "failing"])
async def test_a_services_retries_come_back_on_time_while_anothers_queue_is(state: str, chaos_node: ChaosNode, tmp_path: Path) -> None:
    environment = {"CHAOS_FAILS": SERVICE} if state == "failing" else {}
    neighbours = Tail(tmp_path / "neighbours")
    async with Scene(chaos_node, tmp_path, environment=environment) as scene:
        await scene.add_worker()
        await scene.add_worker(NEIGHBOUR, "neighbours")
        order = Order(count=EVENTS, rate=200, kinds="events", failing=1, fail=(1,), hopeless=0, seconds=0, timeout=3)
        sender = await scene.start_sender(order)
        await until(lambda: len(attempts(neighbours, 1)) > EVENTS // 2, "half of the events", seconds=PATIENCE)
        if state != "failing":
            scene.workers[0].signal(signal.SIGSTOP)
            await trouble(scene, state)
        troubled = time.monotonic()
        await until(lambda: max(attempts(neighbours, 1).values()) > troubled, "events in the trouble", seconds=PATIENCE)
        sender.enough()
        await sender.ended()
        try:
            await until(lambda: came_back(scene, neighbours), "the neighbour's retries", seconds=PATIENCE)
        except AssertionError:
            pending = len(attempts(neighbours, 1)) - len(attempts(neighbours, 2))
            assert not pending, f"late: {pending} of {EVENTS} retries did not come back while another's queue was {state}"
            raise
    first, second = attempts(neighbours, 1), attempts(neighbours, 2)
    late = sorted(at - first[number] - 1 for number, at in second.items())
    print(f"retries beside a service whose queue is {state}: late by {late[len(late) // 2]:.3f} s (median), {late[-1]:.3f} s (most)")


def came_back(scene: Scene, neighbours: Tail) -> bool:
    """Every event that was accepted has come, and each that has come has come again. A full queue's refusals may have reached the other."""
    scene.sends.news()
    acked = {entry.number for entry in scene.sends.entries if entry.mark == ACKED}
    first = attempts(neighbours, 1).keys()
    return acked <= first == attempts(neighbours, 2).keys()


async def trouble(scene: Scene, state: str) -> None:
    if state == "full":
        await scene.api("PUT", "policies/{}/full", {"pattern": f"^{QUEUE}$", "definition": {"max-length": 1}, "apply-to": "queues"})
    else:
        await scene.api("DELETE", f"queues/{{}}/{QUEUE}")


def attempts(journal: Tail, attempt: int) -> dict[int, float]:
    """When each message's attempt was delivered first."""
    journal.news()
    found: dict[int, float] = {}
    for entry in journal.entries:
        if entry.mark == DELIVERED and entry.detail.endswith(f" {attempt}"):
            found.setdefault(entry.number, entry.at)
    return found
