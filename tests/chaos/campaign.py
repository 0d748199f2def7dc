"""One run of a fault class.

Messages flow, faults strike by a schedule, the queues drain, and then the ledger is read.
"""

import asyncio
import random
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from bus.operations.brokers.private_node import PrivateNode
from tests.chaos.actor import Actor
from tests.chaos.faults import Fault
from tests.chaos.journal import ACKED, EFFECT, SENT, Entry
from tests.chaos.ledger import Ledger, Verdict, judged
from tests.chaos.scene import OURS, Party, Scene
from tests.chaos.sender import Order

__all__ = ["REST", "Played", "Size", "at_rest", "broken", "play", "play_in"]

LOOK = 0.1
REST = 30.0
"""Seconds without a new entry after which no more are expected.

Any retry or reconnect is shorter, even on a loaded machine.
"""
CALM = 0.5
"""Seconds between two checks that must both find the queues empty.

The second check finds a message that was being handled during the first.
"""


@dataclass(frozen=True, kw_only=True)
class Size:
    """The size of a campaign."""

    messages: int
    faults: int
    seed: int
    rate: float = 250
    senders: int = 50
    timeout: float = 40
    """Seconds for each send."""


@dataclass(frozen=True, kw_only=True)
class Played:
    """The result of a campaign."""

    fault: str
    party: str
    size: Size
    faults: int
    verdict: Verdict
    in_flight: int
    """Largest number of effects that the faults can have repeated.

    For each fault it counts the messages at the workers, and those that the sender sends again.
    """
    waiting: Mapping[str, int]
    """Messages that were still in queues at the end."""
    exits: tuple[int, ...]
    confirms: tuple[float, ...]
    """Seconds from each return of the broker to the first confirm."""
    effects: tuple[float, ...]
    """Seconds from each return of the broker to the first effect."""
    seconds: float


async def play(
    fault: Fault, size: Size, node: PrivateNode, directory: Path, *, party: Party = OURS
) -> Played:
    """Run a campaign on this node."""
    async with Scene(node, directory, party=party, environment=fault.environment) as scene:
        return await play_in(scene, fault, size)


async def play_in(scene: Scene, fault: Fault, size: Size) -> Played:
    """Run a campaign in an open scene."""
    began, party = time.monotonic(), scene.party
    rates = {"rate": size.rate, "senders": size.senders, "timeout": size.timeout}
    order = Order.model_validate(
        {"count": size.messages, "seed": size.seed, **rates, **party.order}
    )
    for _ in range(fault.workers):
        await scene.add_worker()
    sender = await scene.start_sender(order)
    faults = await struck(fault, size, scene)
    await recovered(scene)
    sender.enough()
    await ended(sender, scene)
    await at_rest(scene)
    # Messages at a worker, or in the queue of a dead one, are not lost.
    if not party.stops:
        await scene.replace_workers()
        await at_rest(scene)
    else:
        await emptied(scene)
    for worker in [*scene.workers] if party.stops else []:
        await scene.stop_worker(worker)
    waiting = await scene.waiting() if party.stops else {}
    scene.work.news()
    return Played(
        fault=fault.name,
        party=party.name,
        size=size,
        faults=faults,
        verdict=judged(
            Ledger(sends=scene.sends.entries, work=scene.work.entries, dead=await scene.dead())
        ),
        in_flight=doubled(fault, size) if fault.splits and party.stops else 0,
        waiting={name: count for name, count in waiting.items() if count},
        exits=tuple(scene.exits),
        confirms=first_after(scene.back, scene.sends.entries, ACKED),
        effects=first_after(scene.back, scene.work.entries, EFFECT),
        seconds=time.monotonic() - began,
    )


def broken(played: Played, fault: Fault) -> list[str]:
    """Return the promises that were broken; empty if all were kept."""
    verdict = played.verdict
    rules = {
        f"lost: {len(verdict.lost)} of {verdict.acked} acked, such as {verdict.lost[:20]}": bool(
            verdict.lost
        ),
        f"unexpected: {len(verdict.unexpected)}, such as {verdict.unexpected[:20]}": bool(
            verdict.unexpected
        ),
        (
            f"unknown: {verdict.unknown} of {verdict.messages}, "
            "though no fault is longer than their timeout"
        ): verdict.unknown > 0,
        (
            f"failed: {verdict.failed}, "
            f"and the fault should refuse {'some' if fault.refuses else 'none'}"
        ): bool(verdict.failed) != fault.refuses,
        f"left over: {dict(played.waiting)}": bool(played.waiting),
        f"exit codes: {played.exits}": any(played.exits),
        (f"duplicate effects: {verdict.duplicate_effects}, at most {played.in_flight}"): (
            verdict.duplicate_effects > played.in_flight
        ),
    }
    return [rule for rule, hurt in rules.items() if hurt]


TAKEN = 2 * 16
"""Largest number of messages in flight at a worker: two queues of sixteen."""


def doubled(fault: Fault, size: Size) -> int:
    """Return the largest number of messages in flight when the faults struck."""
    return size.faults * (fault.workers * TAKEN + (size.senders if fault.resends else 0))


async def struck(fault: Fault, size: Size, scene: Scene) -> int:
    """Let each fault strike after a number of sent messages, and return the number of faults.

    The same seed strikes after the same numbers.
    """
    chance = random.Random(f"{size.seed} {fault.name}")
    sent = 0
    for number, due in enumerate(
        sorted(
            chance.uniform(0.1, 0.9) * size.messages
            for _ in range(-(-size.faults // fault.at_once))
        )
    ):
        while sent < due:
            sent += sum(entry.mark == SENT for entry in scene.sends.news())
            assert scene.sender is None or scene.sender.running, (
                f"the sender ended:\n{scene.sender.said()}"
            )
            await asyncio.sleep(LOOK / 5)
        try:
            await fault.strike(scene, chance)
        except TimeoutError:
            if scene.party.stops:
                raise
            return number  # A peer's worker that has ended has no connection to strike.
        sent = sum(entry.mark == SENT for entry in scene.sends.entries)
    return size.faults


async def recovered(scene: Scene) -> None:
    """Wait until a send succeeds again, which may take long for a peer, or never happen."""
    began = time.monotonic()
    scene.sends.news()
    while time.monotonic() - began < REST and not any(
        entry.mark == ACKED for entry in scene.sends.news()
    ):
        await asyncio.sleep(LOOK)


async def ended(sender: Actor, scene: Scene) -> None:
    """Wait until the last send has its outcome."""
    code = await sender.ended(seconds=600)
    assert code == 0, f"the sender failed:\n{sender.said()}"
    scene.sends.news()


async def at_rest(scene: Scene, rest: float = REST) -> None:
    """Wait until each acked message has a result, or no new result has come for `rest` seconds."""
    quiet = time.monotonic()
    acked = {entry.number for entry in scene.sends.entries if entry.mark == ACKED}
    done = {entry.number for entry in scene.work.entries if entry.mark == EFFECT}
    dead: set[int] = set()
    while missing := acked - done - dead:
        fresh = {entry.number for entry in scene.work.news() if entry.mark == EFFECT}
        quiet = time.monotonic() if fresh else quiet
        done |= fresh
        # The missing messages may be dead letters.
        if len(missing) < len(acked) / 20 and not fresh:
            found = await scene.dead()
            quiet = time.monotonic() if found - dead else quiet
            dead = found
        if time.monotonic() - quiet > rest:
            return
        await asyncio.sleep(LOOK)


async def emptied(scene: Scene) -> None:
    """Wait until the queues are empty.

    A message that a fault duplicated may still wait for its retry. It is not lost, and has a
    result later.
    """
    began = time.monotonic()
    while time.monotonic() - began < REST:
        scene.work.news()
        before = len(scene.work.entries)
        if not any((await scene.waiting()).values()):
            await asyncio.sleep(CALM)
            if (
                not any((await scene.waiting()).values())
                and not scene.work.news()
                and len(scene.work.entries) == before
            ):
                return
        await asyncio.sleep(LOOK)


def first_after(moments: list[float], entries: list[Entry], mark: str) -> tuple[float, ...]:
    """Return the seconds from each of these moments to the next entry with the mark."""
    times = sorted(entry.at for entry in entries if entry.mark == mark)
    return tuple(
        min((at - moment for at in times if at >= moment), default=float("inf"))
        for moment in moments
    )
