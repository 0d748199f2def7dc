"""Comparison of a retry policy with the deliveries."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from typing_extensions import override

from bus.messaging.topology.names import RETRY_DELAYS, retry_delay_for
from tests.chaos.campaign import REST, at_rest
from tests.chaos.journal import ACKED, DELIVERED, EFFECT, Entry
from tests.chaos.node import ChaosNode
from tests.chaos.scene import Scene
from tests.chaos.sender import Order, messages

__all__ = ["Policy", "Tries", "percentile", "tried"]


@dataclass(frozen=True, kw_only=True)
class Policy:
    """A retry policy: attempts, first wait in seconds, and the factor of each further wait."""

    attempts: int
    first: int
    factor: int

    @override
    def __str__(self) -> str:
        return f"{self.attempts} {self.first} {self.factor}"

    def wait(self, attempt: int) -> float:
        """Return the seconds that a message waits in its tier before this attempt (from 2)."""
        return RETRY_DELAYS[retry_delay_for(self.first * self.factor ** (attempt - 2))]


@dataclass(frozen=True, kw_only=True)
class Tries:
    """The expected and the actual attempts."""

    wanted: Mapping[int, int]
    """Expected attempts of each message."""
    counted: Mapping[int, int]
    doomed: frozenset[int]
    """Numbers of the messages that must be dead-lettered."""
    letters: Mapping[int, Mapping[str, Any]]
    """Headers of the dead letters."""
    late: list[float]
    """Delays of the attempts after the first beyond their tier's time, in seconds and sorted."""
    lost: int


async def tried(node: ChaosNode, directory: Path, order: Order, policy: Policy) -> Tries:
    """Send messages to a worker with this policy, without a fault."""
    async with Scene(node, directory, environment={"CHAOS_RETRY": str(policy)}) as scene:
        await scene.add_worker()
        sender = await scene.start_sender(order)
        sender.enough()
        assert await sender.ended(seconds=1200) == 0, sender.said()
        scene.sends.news()
        await at_rest(scene, rest=policy.wait(policy.attempts) + REST)
        letters = {letter.number: letter.headers for letter in await scene.dead_letters()}
    sent = [
        (message.number, message.failures, message.hopeless)
        for message in islice(messages(order), order.count)
    ]
    acked = {entry.number for entry in scene.sends.entries if entry.mark == ACKED}
    done = {entry.number for entry in scene.work.entries if entry.mark == EFFECT}
    return Tries(
        wanted={
            number: 1 if hopeless else min(policy.attempts, failures + 1)
            for number, failures, hopeless in sent
        },
        counted=Counter(entry.number for entry in scene.work.entries if entry.mark == DELIVERED),
        doomed=frozenset(
            number for number, failures, hopeless in sent if hopeless or failures >= policy.attempts
        ),
        letters=letters,
        late=lateness(scene.work.entries, policy),
        lost=len(acked - done - letters.keys()),
    )


def lateness(work: list[Entry], policy: Policy) -> list[float]:
    """Return the times between deliveries, less the tier's own time, sorted."""
    at = {
        (entry.number, int(entry.detail.split()[1])): entry.at
        for entry in work
        if entry.mark == DELIVERED
    }
    pairs = (
        (moment, at.get((number, attempt - 1)), attempt) for (number, attempt), moment in at.items()
    )
    return sorted(
        moment - before - policy.wait(attempt)
        for moment, before, attempt in pairs
        if before is not None
    )


def percentile(ordered: list[float], share: float) -> float:
    """Return a percentile of sorted values by nearest rank."""
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]
