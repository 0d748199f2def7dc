"""The fault classes: what is done to a scene, who loses something by it, and how often in the short form."""

import asyncio
import random
import signal
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field

from bus.contracts.contract import contract_of
from bus.messaging.topology.names import (
    DEAD,
    dead_letter_queue,
    event_queue,
    job_queue,
    retry_return_exchange,
)
from bus.messaging.topology.names import JOBS as EXCHANGE
from bus.operations.brokers.private_node import DEFAULTS
from tests.broker import queues_to_disk
from tests.chaos.contracts import SERVICE, Happened, Work
from tests.chaos.journal import ACKED, EFFECT, FAILED, Tail
from tests.chaos.scene import Scene

__all__ = ["FAULTS", "Fault"]

PATIENCE = 60.0
"""Seconds for a fault to show; most take a fraction of one, on a quiet machine."""
REFUSING = 6.0
"""Seconds that the broker refuses at most; the first refusals come within one."""
ENOUGH = 1000
"""Sends that succeed before it is clear that none will fail."""
LOOK = 0.02
JOBS, EVENTS = job_queue(contract_of(Work)), event_queue(SERVICE, contract_of(Happened))
WATERMARK = DEFAULTS["vm_memory_high_watermark.absolute"]


@dataclass(frozen=True, kw_only=True)
class Fault:
    """One class of faults."""

    name: str
    title: str
    strike: Callable[[Scene, random.Random], Awaitable[None]]
    """Does it once, and returns when it is over."""
    faults: int
    """How often in the short form."""
    at_once: int = 1
    """So many of them strike together."""
    messages: int = 1000
    """At least how many in the short form."""
    workers: int = 1
    splits: bool = False
    """Whether a process dies, or another one may get what its connection lost, between effect and ack: then effects may be double."""
    resends: bool = False
    """Whether the sender's connection goes as well: what it sends again may come to another process than the first copy did."""
    refuses: bool = False
    """Whether the broker refuses publishes meanwhile, so that some sends fail."""
    environment: Mapping[str, str] = field(default_factory=dict)


async def until(condition: Callable[[], object], seconds: float = PATIENCE) -> None:
    """Wait for a condition that the fault brings about; a fault that does not show is an error of the suite."""
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(LOOK)


# --- the broker ----------------------------------------------------------------------------------------------------


async def kill_broker(scene: Scene, chance: random.Random) -> None:
    """The queues are old enough to be on the disk, which a campaign's are not at its first kill; its messages are as new as they are."""
    if not scene.back:
        await queues_to_disk(scene.node)
    await scene.node.kill()
    await asyncio.sleep(chance.random())
    await scene.returns(scene.node.start())
    await felt_again(scene)


async def restart_broker(scene: Scene, chance: random.Random) -> None:
    await scene.returns(scene.node.restart())
    await felt_again(scene)


async def felt_again(scene: Scene) -> None:
    """Until the broker's return is felt on both sides, so that it is this return which is timed; who has given up is left alone."""
    began = time.monotonic()
    while time.monotonic() - began < PATIENCE and not (
        came_after(scene, scene.sends, ACKED) and came_after(scene, scene.work, EFFECT)
    ):
        await asyncio.sleep(LOOK)


def came_after(scene: Scene, journal: Tail, mark: str) -> bool:
    """Whether the last return was followed by an entry of this kind."""
    journal.news()
    return any(
        entry.mark == mark and entry.at > scene.back[-1] for entry in journal.entries[-ENOUGH:]
    )


async def alarm(scene: Scene, chance: random.Random) -> None:
    await scene.node.ctl("set_vm_memory_high_watermark", "absolute", "1")
    try:
        await silence(scene, 0.5)
    finally:
        await scene.node.ctl("set_vm_memory_high_watermark", "absolute", WATERMARK)
        scene.back.append(time.monotonic())
    await felt_again(scene)


async def silence(scene: Scene, seconds: float) -> None:
    """Until nothing is confirmed any more for so long; where it goes on, the ledger says what that means."""
    began = quiet = time.monotonic()
    while time.monotonic() - quiet < seconds and time.monotonic() - began < REFUSING:
        await asyncio.sleep(LOOK)
        if any(entry.mark == ACKED for entry in scene.sends.news()):
            quiet = time.monotonic()


async def full_queue(scene: Scene, chance: random.Random) -> None:
    """The workers stand still, so that the queues fill, and then drain them: only that makes RabbitMQ 3.10 take publishes again."""
    policy = {
        "pattern": rf"^({JOBS}|{EVENTS})$",
        "definition": {"max-length": 10},
        "apply-to": "queues",
    }
    for worker in scene.workers:
        worker.signal(signal.SIGSTOP)
    await scene.api("PUT", "policies/{}/full", policy)
    try:
        await silence(scene, 0.3 + chance.random())
    finally:
        for worker in scene.workers:
            worker.signal(signal.SIGCONT)
    await taken_again(scene)
    await lifted(scene)


async def taken_again(scene: Scene) -> None:
    """Until both queues take publishes again."""
    taken: set[int] = set()
    began = time.monotonic()
    while len(taken) < len((JOBS, EVENTS)) and time.monotonic() - began < PATIENCE:
        await asyncio.sleep(LOOK)
        taken |= {entry.number % 2 for entry in scene.sends.news() if entry.mark == ACKED}


async def lifted(scene: Scene) -> None:
    """The limit goes while the queues are empty: one that is refusing when it goes refuses that channel for ever, on 3.10."""
    assert scene.sender
    scene.sender.signal(signal.SIGSTOP)
    try:
        empty, began = 0, time.monotonic()
        while (
            empty < 2 and time.monotonic() - began < REFUSING
        ):  # what is on its way when the sender stops comes before the second look
            waiting = await scene.waiting()
            empty = 0 if waiting[JOBS] or waiting[EVENTS] else empty + 1
            await asyncio.sleep(LOOK)
        await scene.api("DELETE", "policies/{}/full")
    finally:
        scene.sender.signal(signal.SIGCONT)


async def unbound(scene: Scene, chance: random.Random) -> None:
    """Nobody takes the jobs for a while; events without a subscriber are nobody's loss, so theirs stays."""
    key = contract_of(Work).type
    await scene.api("DELETE", f"bindings/{{}}/e/{EXCHANGE}/q/{JOBS}/{key}")
    await refused(scene, chance.randrange(5, 30))
    await scene.api("POST", f"bindings/{{}}/e/{EXCHANGE}/q/{JOBS}", {"routing_key": key})


async def refused(scene: Scene, count: int) -> None:
    """Until so many more sends have failed; where they succeed instead, the ledger says what that means."""
    failed = acked = 0
    while failed < count and acked < ENOUGH:
        await asyncio.sleep(LOOK)
        marks = Counter(entry.mark for entry in scene.sends.news())
        failed, acked = failed + marks[FAILED], acked + marks[ACKED]


async def dead_letter_target_gone(scene: Scene, chance: random.Random) -> None:
    """The way back from the retry tiers goes, and then the ways into the dead letters; an operator mends the first."""
    back = retry_return_exchange(SERVICE)
    exchange = await scene.api("GET", f"exchanges/{{}}/{back}")
    await scene.api("DELETE", f"exchanges/{{}}/{back}")
    for queue in (JOBS, EVENTS):
        way = f"bindings/{{}}/e/{DEAD}/q/{dead_letter_queue(queue)}"
        if await scene.api(
            "GET", way
        ):  # the bus mends it with the next dead letter; where there was none since, it is gone still
            await scene.api("DELETE", f"{way}/{queue}")
    await asyncio.sleep(
        2 + chance.random()
    )  # the tiers' time is one second: what is due finds nobody
    await scene.api(
        "PUT",
        f"exchanges/{{}}/{back}",
        {key: exchange[key] for key in ("type", "durable", "arguments")},
    )
    for queue in (JOBS, EVENTS):
        await scene.api("POST", f"bindings/{{}}/e/{back}/q/{queue}", {"routing_key": queue})


# --- connections ---------------------------------------------------------------------------------------------------


async def close_connections(scene: Scene, chance: random.Random) -> None:
    await scene.node.ctl("close_all_connections", "--vhost", scene.vhost, "by the operator")


async def reset_within_a_frame(scene: Scene, chance: random.Random) -> None:
    proxy = chance.choice((scene.before_sender, scene.before_workers))
    before, within = proxy.cuts, chance.randrange(1, 600)
    proxy.cut_within(chance.choice(("up", "down")), within)
    try:
        await until(lambda: proxy.cuts > before, REFUSING)
    except TimeoutError:  # nothing goes that way: who asks for no confirms hears of nothing
        proxy.cut_within("up", within)
        await until(lambda: proxy.cuts > before)


async def swallow_confirms(scene: Scene, chance: random.Random) -> None:
    """The broker has taken the messages; the sender hears nothing of it before its connection is reset."""
    proxy = scene.before_sender
    before = proxy.swallowed
    proxy.swallowing = True
    try:
        await until(lambda: proxy.swallowed > before)  # one frame may confirm all that is under way
        await asyncio.sleep(chance.random() / 4)
        proxy.cut()
    finally:
        proxy.swallowing = False


async def half_open(scene: Scene, chance: random.Random) -> None:
    """No end of a connection hears of the other any more, and nobody says so."""
    proxy = chance.choice((scene.before_sender, scene.before_workers))
    proxy.freeze()
    await until(lambda: not proxy.frozen)


async def channel_error(scene: Scene, chance: random.Random) -> None:
    proxy = chance.choice((scene.before_sender, scene.before_workers))
    before = proxy.forged
    proxy.forge()
    await until(lambda: proxy.forged > before)


# --- workers -------------------------------------------------------------------------------------------------------


async def kill_worker(scene: Scene, chance: random.Random) -> None:
    worker = chance.choice(scene.workers)
    scene.workers.remove(worker)
    await worker.kill()
    await scene.add_worker()


async def stop_workers(scene: Scene, chance: random.Random) -> None:
    """As a deployment does: new ones first, then the old ones, each at a moment of its own."""
    old = [*scene.workers]
    await asyncio.gather(*(scene.add_worker() for _ in old))
    await asyncio.gather(*(later(chance.random(), scene.stop_worker(worker)) for worker in old))


async def later(seconds: float, what: Awaitable[None]) -> None:
    await asyncio.sleep(seconds)
    await what


FAULTS = {
    fault.name: fault
    for fault in (
        Fault(
            name="kill-broker",
            title="broker killed (SIGKILL) and started",
            strike=kill_broker,
            faults=2,
        ),
        Fault(
            name="restart-broker", title="broker restarted cleanly", strike=restart_broker, faults=1
        ),
        Fault(
            name="close-connections",
            title="connections closed by the operator",
            strike=close_connections,
            faults=3,
            workers=2,
            splits=True,
            resends=True,
        ),
        Fault(
            name="reset",
            title="connection reset within a frame",
            strike=reset_within_a_frame,
            faults=8,
        ),
        Fault(
            name="swallowed-confirms",
            title="confirms swallowed, then reset",
            strike=swallow_confirms,
            faults=4,
        ),
        Fault(
            name="half-open",
            title="half-open connections",
            strike=half_open,
            faults=2,
            environment={"BUS_HEARTBEAT": "1"},
        ),
        Fault(
            name="kill-worker",
            title="worker killed (SIGKILL)",
            strike=kill_worker,
            faults=3,
            workers=2,
            splits=True,
        ),
        Fault(
            name="stop-worker",
            title="workers stopped (SIGTERM)",
            strike=stop_workers,
            faults=20,
            at_once=5,
            messages=4000,
            workers=5,
        ),
        Fault(name="alarm", title="memory alarm", strike=alarm, faults=2),
        Fault(name="full-queue", title="work queues full", strike=full_queue, faults=2),
        Fault(
            name="unbound", title="a job's queue unbound", strike=unbound, faults=2, refuses=True
        ),
        Fault(
            name="channel-error",
            title="channel closed with an error (406)",
            strike=channel_error,
            faults=4,
        ),
        Fault(
            name="dead-letter-target",
            title="dead-letter target gone",
            strike=dead_letter_target_gone,
            faults=2,
        ),
    )
}
