"""Retries of one service while the queue of another service for the same events fails."""

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
"""Number of events, half of which arrive before the failure."""
WAIT = 1
"""Seconds for which each event waits for its second attempt."""


@dataclass(frozen=True, kw_only=True)
class Beside:
    """The result for the neighbour."""

    events: int
    in_trouble: int
    """Number of events that arrived first while the other service's queue failed."""
    pending: int
    """Number of events without a second attempt."""
    late: list[float]
    """Delays of the second attempts beyond the tier's time, in seconds and sorted."""


class Attempts:
    """The times at which each event's first and second attempt were first delivered."""

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
    """Send events to two services while the queue of one is in a state of failure.

    The first attempt of every event fails at both services.

    Args:
        node: Broker.
        directory: Directory of the journals.
        state: One of `STATES`.
        in_trouble: Number of events that must reach the neighbour during the failure.
        rate: Events a second.
        patience: Seconds to wait for entries that are due within one or two. For the `in_trouble`
            events it is added to the time that they need at the rate.
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
            # Then no retry is missing, but an accepted event that never arrived.
            if seen.first.keys() == seen.second.keys():
                raise
    late = sorted(at - seen.first[number] - WAIT for number, at in seen.second.items())
    pending = len(seen.first.keys() - seen.second.keys())
    return Beside(
        events=len(seen.first), in_trouble=len(seen.first) - before, pending=pending, late=late
    )


def attempted(seen: Attempts) -> dict[int, float]:
    seen.look()
    return seen.first


def came_back(scene: Scene, seen: Attempts) -> bool:
    """Return True if every accepted event has arrived, and every arrived event has been retried.

    An event that the full queue refused may have arrived at the other service.
    """
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
