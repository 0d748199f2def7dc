"""Two services that hear the same events, and one's queue in trouble: what that does to the other's retries."""

import signal
from dataclasses import dataclass
from pathlib import Path

from bus.contracts.contract import contract_of
from bus.messaging.topology.names import event_queue
from tests.chaos.contracts import SERVICE, Happened
from tests.chaos.journal import ACKED, DELIVERED, Tail
from tests.chaos.node import ChaosNode
from tests.chaos.scene import Scene
from tests.chaos.sender import Order
from tests.polling import until

__all__ = ["STATES", "Beside", "retried_beside"]

STATES = ("full", "deleted", "failing")
NEIGHBOUR = "neighbour"
QUEUE = event_queue(SERVICE, contract_of(Happened))
FIRST = 200
"""Events, half of which come before the trouble."""
WAIT = 1
"""Seconds that each event waits for its second attempt."""


@dataclass(frozen=True, kw_only=True)
class Beside:
    """What the neighbour saw."""

    events: int
    in_trouble: int
    """How many of them came first while the other's queue was in trouble."""
    pending: int
    """How many did not come back."""
    late: list[float]
    """Seconds, sorted: how much later than its tier's time each came back."""


class Attempts:
    """When each event's first and second attempt was delivered first; read on from where the last look ended."""

    def __init__(self, journal: Tail) -> None:
        self._journal = journal
        self.first: dict[int, float] = {}
        self.second: dict[int, float] = {}

    def look(self) -> None:
        for entry in self._journal.news():
            if entry.mark == DELIVERED:
                attempt = int(entry.detail.rpartition(" ")[2])
                if attempt <= 2:
                    (self.first if attempt == 1 else self.second).setdefault(entry.number, entry.at)


async def retried_beside(
    node: ChaosNode, directory: Path, state: str, *, in_trouble: int, rate: float, patience: float
) -> Beside:
    """Events to two services until so many have come to the neighbour while the other's queue is `state`.

    Every event's first attempt fails at both. `patience` is the seconds for what has to come within one or two; for
    `in_trouble` events it is added to the time that their rate gives them.
    """
    environment = {"CHAOS_FAILS": SERVICE} if state == "failing" else {}
    seen = Attempts(Tail(directory / "neighbours"))
    async with Scene(node, directory, environment=environment) as scene:
        await scene.add_worker()
        await scene.add_worker(NEIGHBOUR, "neighbours")
        order = Order(
            count=FIRST,
            rate=rate,
            kinds="events",
            failing=1,
            fail=(1,),
            hopeless=0,
            seconds=0,
            timeout=3,
        )
        sender = await scene.start_sender(order)
        await until(
            lambda: len(attempted(seen)) > FIRST // 2,
            "half of the first events",
            seconds=patience + FIRST / rate,
        )
        if state != "failing":
            scene.workers[0].signal(signal.SIGSTOP)
            await trouble(scene, state)
        before = len(attempted(seen))
        enough = before + in_trouble
        await until(
            lambda: len(attempted(seen)) >= enough,
            "events in the trouble",
            seconds=patience + in_trouble * 2 / rate,
        )
        sender.enough()
        await sender.ended()
        try:
            await until(lambda: came_back(scene, seen), "the neighbour's retries", seconds=patience)
        except AssertionError:
            if seen.first.keys() == seen.second.keys():
                raise  # not a retry, but an event that was accepted and never came
    late = sorted(at - seen.first[number] - WAIT for number, at in seen.second.items())
    pending = len(seen.first.keys() - seen.second.keys())
    return Beside(
        events=len(seen.first), in_trouble=len(seen.first) - before, pending=pending, late=late
    )


def attempted(seen: Attempts) -> dict[int, float]:
    seen.look()
    return seen.first


def came_back(scene: Scene, seen: Attempts) -> bool:
    """Every event that was accepted has come, and each that has come has come again. A full queue's refusals may have reached the other."""
    seen.look()
    scene.sends.news()
    acked = {entry.number for entry in scene.sends.entries if entry.mark == ACKED}
    return acked <= seen.first.keys() == seen.second.keys()


async def trouble(scene: Scene, state: str) -> None:
    if state == "full":
        await scene.api(
            "PUT",
            "policies/{}/full",
            {"pattern": f"^{QUEUE}$", "definition": {"max-length": 1}, "apply-to": "queues"},
        )
    else:
        await scene.api("DELETE", f"queues/{{}}/{QUEUE}")
