"""Fault classes: the action on a scene, its possible effects, and the size of the short form."""

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
from bus.operations.brokers.node_files import DEFAULTS
from tests.broker import queues_to_disk
from tests.chaos.contracts import SERVICE, Happened, Work
from tests.chaos.journal import ACKED, EFFECT, FAILED, Tail
from tests.chaos.scene import Scene

__all__ = ["FAULTS", "Fault"]

PATIENCE = 60.0
"""Seconds for a fault to take effect; on an idle machine most need a fraction of one."""
REFUSING = 6.0
"""Largest number of seconds in which the broker refuses; the first refusals come within one."""
ENOUGH = 1000
"""Number of successful sends that show that none will fail."""
LOOK = 0.02
JOBS, EVENTS = job_queue(contract_of(Work)), event_queue(SERVICE, contract_of(Happened))
WATERMARK = DEFAULTS["vm_memory_high_watermark.absolute"]


@dataclass(frozen=True, kw_only=True)
class Fault:
    """A class of faults."""

    name: str
    title: str
    strike: Callable[[Scene, random.Random], Awaitable[None]]
    """Function that causes one fault, and returns when it is over."""
    faults: int
    """Number of faults in the short form."""
    at_once: int = 1
    """Number of faults that strike together."""
    messages: int = 1000
    """Smallest number of messages in the short form."""
    workers: int = 1
    splits: bool = False
    """True if an effect may be repeated.

    A process ends between effect and ack, or another process gets the deliveries of a lost
    connection.
    """
    resends: bool = False
    """True if the sender's connection is lost, too.

    A message that is sent again may then reach another process than the first copy.
    """
    refuses: bool = False
    """True if the broker refuses publishes during the fault, so that some sends fail."""
    environment: Mapping[str, str] = field(default_factory=dict)


async def until(condition: Callable[[], object], seconds: float = PATIENCE) -> None:
    """Wait for a condition that the fault causes.

    A fault without an effect is an error of the suite.
    """
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(LOOK)


# --- Broker ---


async def kill_broker(scene: Scene, chance: random.Random) -> None:
    """Kill and start the broker.

    At the first kill the queues may be too new to be on disk, so they are written first. Their
    messages are not.
    """
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
    """Wait until both sides work after the broker's return, so that this return is the timed one.

    The wait ends after `PATIENCE` seconds, because a peer may never work again.
    """
    began = time.monotonic()
    while time.monotonic() - began < PATIENCE and not (
        came_after(scene, scene.sends, ACKED) and came_after(scene, scene.work, EFFECT)
    ):
        await asyncio.sleep(LOOK)


def came_after(scene: Scene, journal: Tail, mark: str) -> bool:
    """Return True if an entry with this mark follows the last return of the broker."""
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
    """Wait until nothing was confirmed for this number of seconds.

    If confirms continue, the ledger judges the result.
    """
    began = quiet = time.monotonic()
    while time.monotonic() - quiet < seconds and time.monotonic() - began < REFUSING:
        await asyncio.sleep(LOOK)
        if any(entry.mark == ACKED for entry in scene.sends.news()):
            quiet = time.monotonic()


async def full_queue(scene: Scene, chance: random.Random) -> None:
    """Pause the workers until the queues are full, then let the workers drain them.

    Only empty queues make RabbitMQ 3.10 accept publishes again.
    """
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
    """Wait until both queues accept publishes again."""
    taken: set[int] = set()
    began = time.monotonic()
    while len(taken) < len((JOBS, EVENTS)) and time.monotonic() - began < PATIENCE:
        await asyncio.sleep(LOOK)
        taken |= {entry.number % 2 for entry in scene.sends.news() if entry.mark == ACKED}


async def lifted(scene: Scene) -> None:
    """Remove the limit while the queues are empty.

    On RabbitMQ 3.10 a queue that refuses at that moment refuses the channel forever.
    """
    assert scene.sender
    scene.sender.signal(signal.SIGSTOP)
    try:
        empty, began = 0, time.monotonic()
        # Messages in flight when the sender is paused arrive before the second check.
        while empty < 2 and time.monotonic() - began < REFUSING:
            waiting = await scene.waiting()
            empty = 0 if waiting[JOBS] or waiting[EVENTS] else empty + 1
            await asyncio.sleep(LOOK)
        await scene.api("DELETE", "policies/{}/full")
    finally:
        scene.sender.signal(signal.SIGCONT)


async def unbound(scene: Scene, chance: random.Random) -> None:
    """Remove the binding of the job queue for a while.

    An event without a subscriber is not a lost message, so the binding of the events stays.
    """
    key = contract_of(Work).type
    await scene.api("DELETE", f"bindings/{{}}/e/{EXCHANGE}/q/{JOBS}/{key}")
    await refused(scene, chance.randrange(5, 30))
    await scene.api("POST", f"bindings/{{}}/e/{EXCHANGE}/q/{JOBS}", {"routing_key": key})


async def refused(scene: Scene, count: int) -> None:
    """Wait until this number of sends has failed.

    If they succeed instead, the ledger judges the result.
    """
    failed = acked = 0
    while failed < count and acked < ENOUGH:
        await asyncio.sleep(LOOK)
        marks = Counter(entry.mark for entry in scene.sends.news())
        failed, acked = failed + marks[FAILED], acked + marks[ACKED]


async def dead_letter_target_gone(scene: Scene, chance: random.Random) -> None:
    """Delete the return exchange of the retry tiers, and the bindings of the dead-letter queues.

    An operator creates the return exchange again, and the bus the bindings.
    """
    back = retry_return_exchange(SERVICE)
    exchange = await scene.api("GET", f"exchanges/{{}}/{back}")
    await scene.api("DELETE", f"exchanges/{{}}/{back}")
    for queue in (JOBS, EVENTS):
        binding = f"bindings/{{}}/e/{DEAD}/q/{dead_letter_queue(queue)}"
        # The bus declares the binding with the next dead letter. Without one it is still missing.
        if await scene.api("GET", binding):
            await scene.api("DELETE", f"{binding}/{queue}")
    # Messages of the tier of one second find no return exchange in this time.
    await asyncio.sleep(2 + chance.random())
    await scene.api(
        "PUT",
        f"exchanges/{{}}/{back}",
        {key: exchange[key] for key in ("type", "durable", "arguments")},
    )
    for queue in (JOBS, EVENTS):
        await scene.api("POST", f"bindings/{{}}/e/{back}/q/{queue}", {"routing_key": queue})


# --- Connections ---


async def close_connections(scene: Scene, chance: random.Random) -> None:
    await scene.node.ctl("close_all_connections", "--vhost", scene.vhost, "by the operator")


async def reset_within_a_frame(scene: Scene, chance: random.Random) -> None:
    proxy = chance.choice((scene.before_sender, scene.before_workers))
    before, within = proxy.cuts, chance.randrange(1, 600)
    proxy.cut_within(chance.choice(("up", "down")), within)
    try:
        await until(lambda: proxy.cuts > before, REFUSING)
    except TimeoutError:  # A sender without confirms receives no frames: cut the other direction.
        proxy.cut_within("up", within)
        await until(lambda: proxy.cuts > before)


async def swallow_confirms(scene: Scene, chance: random.Random) -> None:
    """Drop the broker's confirms of accepted messages, and then reset the sender's connection."""
    proxy = scene.before_sender
    before = proxy.swallowed
    proxy.swallowing = True
    try:
        # One frame may confirm all messages in flight.
        await until(lambda: proxy.swallowed > before)
        await asyncio.sleep(chance.random() / 4)
        proxy.cut()
    finally:
        proxy.swallowing = False


async def half_open(scene: Scene, chance: random.Random) -> None:
    """Stop the traffic of a connection in both directions without closing it."""
    proxy = chance.choice((scene.before_sender, scene.before_workers))
    proxy.freeze()
    await until(lambda: not proxy.frozen)


async def channel_error(scene: Scene, chance: random.Random) -> None:
    proxy = chance.choice((scene.before_sender, scene.before_workers))
    before = proxy.forged
    proxy.forge()
    await until(lambda: proxy.forged > before)


# --- Workers ---


async def kill_worker(scene: Scene, chance: random.Random) -> None:
    worker = chance.choice(scene.workers)
    scene.workers.remove(worker)
    await worker.kill()
    await scene.add_worker()


async def stop_workers(scene: Scene, chance: random.Random) -> None:
    """Start new workers, and then stop the old ones at random moments, as in a deployment."""
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
