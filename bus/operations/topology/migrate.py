"""A queue made anew with other arguments, its messages kept: out into a holding queue, and back.

    out    the holding queue is made, and takes over the bindings; what is in the queue moves there; the queue is deleted
    back   the queue is made anew; what was held moves back; the bindings return; the holding queue is deleted

A retry tier is not moved: the routing keys in it say where each message returns to, and a move would lose them. Its holding
queue is a tier as well, and both are left to run out.

Where it stands is read from the broker at each start, so that one that was killed goes on. The bindings overlap while they
are handed over, so that nothing published meanwhile misses both queues: a message may then be in both.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, replace

from bus.errors import Aborted, FailedPrecondition, NotFound
from bus.messaging.topology.declarations import migration_topology
from bus.messaging.topology.model import Queue, Topology
from bus.messaging.topology.names import migration_queue
from bus.operations.topology.broker_state import BrokerState, queue_totals, read_broker_state
from bus.operations.topology.diff import diff
from bus.operations.topology.required import RequiredTopology
from bus.settings import Settings
from bus.transports.rabbitmq.admin import AdminSession, open_admin_session
from bus.transports.rabbitmq.amqp.raw_properties import CopyOptions
from bus.transports.rabbitmq.queue_depth import QueueDepth

__all__ = ["MigrationProgress", "MigrationResult", "migrate"]

POLL_INTERVAL_SECONDS = 0.5
"""Seconds between two looks at what is waited for."""
TOTALS_AGE_SECONDS = 6.0
"""Seconds after which a queue's totals are of now; RabbitMQ renews them every 5 (its `quorum_tick_interval`)."""
ARRIVAL_TIMEOUT_SECONDS = 15.0
"""Seconds for dead letters that are under way to arrive."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MigrationProgress:
    """Where a migration stands."""

    step: str
    moved: int = 0
    """Messages, in this step."""
    total: int = 0
    """Messages that were there when it began; more may come."""
    redelivered: int = 0
    """Of those moved, how many may be there twice; each says so in its header `redelivered`."""


Report = Callable[[MigrationProgress], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class MigrationResult:
    """What became of it."""

    moved: int
    """Messages that came back into the queue in this run."""
    redelivered: int
    """Of all that were moved in this run, how many may be there twice."""


async def migrate(
    name: str,
    wanted: RequiredTopology,
    settings: Settings,
    *,
    wait: float | None = None,
    report: Report = lambda _: None,
) -> MigrationResult | None:
    """Make the queue `name` anew as `wanted` needs it; None where it is so already.

    It is refused (`FailedPrecondition`) while anybody consumes the queue. With `wait` the bindings move all the same, and who
    consumes has so many seconds to finish what is left and go; then `Aborted`. Run again, it goes on.
    """
    queue = wanted.queue(name)
    held = await read_broker_state(settings)
    async with open_admin_session(settings) as broker:
        migration = Migration(broker, queue, held, wanted, settings, report)
        if migration.is_right and not migration.is_held:
            return None
        if name not in held.queues and not migration.is_held:
            raise NotFound(f"there is no queue {name}; `bus topology apply` makes it")
        if name in held.queues and not migration.is_right:
            await migration.move_out(wait)
        await migration.move_back()
    return MigrationResult(moved=migration.moved, redelivered=migration.again)


class Migration:
    """One queue's."""

    def __init__(
        self,
        broker: AdminSession,
        queue: Queue,
        held: BrokerState,
        wanted: RequiredTopology,
        settings: Settings,
        report: Report,
    ) -> None:
        self._broker = broker
        self._queue = queue
        self._name = queue.name
        self._holding = migration_queue(queue.name)
        self._held = held
        self._settings = settings
        self._on_progress = report
        found = diff(replace(wanted, topology=Topology(queues=(queue,))), held)
        self.is_right = queue.name in held.queues and not found.having("different")
        self.is_held = self._holding in held.queues
        mine = {self._name, self._holding}
        routes = {replace(each, queue=self._name) for each in held.bindings if each.queue in mine}
        self._routes = sorted(routes, key=lambda each: (each.exchange, each.routing_key))
        self._needs = [
            each
            for each in wanted.topology.bindings
            if each.queue == self._name and each not in routes
        ]
        self._exchanges = Topology(exchanges=wanted.topology.exchanges)
        self._runs_out = queue.role == "retry"
        (holding,) = migration_topology(queue.name).queues
        self._shelter = replace(queue, name=self._holding) if self._runs_out else holding
        self.moved = self.again = 0

    # --- out -------------------------------------------------------------------------------------------------------

    async def move_out(self, wait: float | None) -> None:
        """Into the holding queue, until the old queue is gone."""
        consumers = (await self._depth(self._name)).consumers
        if consumers and wait is None:
            raise FailedPrecondition(
                f"{self._name} has {consumers} consumers: stop the workers first, or use --wait SECONDS"
            )
        await self._broker.declare(Topology(queues=(self._shelter,)))
        await self._check_holding()
        self._report("the holding queue is there")
        if consumers:
            await self._hand_over(self._name, self._holding)
            await self._left(wait or 0)
        await self._empty_and_delete(self._name, self._holding, hold=True)
        self._report("the old queue is deleted")

    async def _check_holding(self) -> None:
        """A policy for every queue may set what would lose messages here."""
        held = await read_broker_state(self._settings)
        plain = RequiredTopology(
            topology=Topology(queues=(self._shelter,)), services=frozenset(), attempts={}
        )
        wrong = diff(plain, held).having("different", "unsafe")
        if wrong:
            raise FailedPrecondition(
                f"messages would not be safe while they are held: {'; '.join(map(str, wrong))}"
            )

    async def _left(self, wait: float) -> None:
        """Who consumes finishes what is in the queue; nothing new comes in."""
        loop = asyncio.get_running_loop()
        ends = loop.time() + wait
        while (depth := await self._depth(self._name)).consumers:
            if loop.time() > ends:
                raise Aborted(
                    f"{self._name} still has {depth.consumers} consumers after {wait:g} s; new messages wait in {self._holding}: "
                    "stop the workers, and run this again"
                )
            self._on_progress(
                MigrationProgress(
                    step=f"waiting for {depth.consumers} consumers to go, {depth.ready} messages before them"
                )
            )
            await asyncio.sleep(POLL_INTERVAL_SECONDS)

    async def _without_others(self) -> None:
        """A quorum queue lets others consume beside us, and what they hold would go with the queue."""
        others = (await self._depth(self._name)).consumers - 1
        if others > 0:
            raise FailedPrecondition(
                f"{self._name} has {others} new consumers: stop the workers, and run this again"
            )

    async def _without_stuck(self) -> None:
        """What cannot be consumed would go with the queue, and only the totals show it.

        In a quorum queue that is dead letters that no queue takes. In a classic one it is what a worker has in hand that has
        cancelled its consumers, as it does when it stops; of a quorum queue such a worker still counts as a consumer.
        """
        old = self._held.queues[self._name]
        if old.kind == "classic":
            left = await self._total_left(
                self._name, "workers to finish what they have in hand", ARRIVAL_TIMEOUT_SECONDS
            )
            if left:
                raise FailedPrecondition(
                    f"{left} messages of {self._name} are in the hands of a worker that is stopping: let it end, and run this again"
                )
        elif old.arguments.get("x-dead-letter-strategy") == "at-least-once":
            left = await self._total_left(
                self._name, "dead letters that are under way", ARRIVAL_TIMEOUT_SECONDS
            )
            if left:
                raise FailedPrecondition(
                    f"{left} messages of {self._name} wait to be dead-lettered, and their target takes none: make it, give RabbitMQ the "
                    "3 minutes after which it tries again, and run this again"
                )

    async def _total_left(self, name: str, what: str, seconds: float) -> int:
        """What is left in a queue, ready or not, after so many seconds; 0 once there has been nothing for as long as totals may be old."""
        loop = asyncio.get_running_loop()
        ends, empty_since = loop.time() + seconds, loop.time()
        while loop.time() - empty_since < TOTALS_AGE_SECONDS:
            left = max(
                (await self._depth(name)).ready, (await queue_totals(self._settings)).get(name, 0)
            )
            if left:
                empty_since = loop.time()
            if left and loop.time() > ends:
                return left
            self._report(f"waiting for {what}")
            await asyncio.sleep(POLL_INTERVAL_SECONDS)
        return 0

    # --- back ------------------------------------------------------------------------------------------------------

    async def move_back(self) -> None:
        """Out of the holding queue, until that is gone."""
        await self._broker.declare(self._exchanges | Topology(queues=(self._queue,)))
        self._report("the new queue is there")
        if await self._broker.depth(self._holding) is not None:
            await self._empty_and_delete(self._holding, self._name, hold=False)
            self._report("the holding queue is deleted")

    # --- both ------------------------------------------------------------------------------------------------------

    async def _empty_and_delete(self, source: str, target: str, *, hold: bool) -> None:
        """Until `source` is gone, and what it held and will get is in `target`."""
        if self._runs_out:
            await self._run_out(source, target)
            return
        total = (await self._depth(source)).ready
        carriage = CopyOptions(hold=hold, keep_deaths=self._queue.role == "dead")
        async with self._broker.shovel(
            source, target, carriage, self._move(f"moving to {target}", total)
        ) as moving:
            await moving.wait_moved(
                total
            )  # before the bindings move, so that what comes later stays behind what was there
            await self._hand_over(source, target)
            await moving.wait_empty()
            if hold:
                await self._without_others()
                await self._without_stuck()
                await moving.wait_empty()
            self._report(f"{source} is empty")
            await self._broker.delete(
                source, if_empty=hold and self._held.queues[source].kind == "classic"
            )

    async def _run_out(self, source: str, target: str) -> None:
        await self._hand_over(source, target)
        held = self._held.queues.get(source)
        ttl = (held.arguments if held else self._queue.arguments).get("x-message-ttl")
        if not isinstance(ttl, int):
            raise FailedPrecondition(
                f"{source} has no x-message-ttl, so that messages do not leave it by themselves; move them by hand"
            )
        left = await self._total_left(
            source, f"{source} to run out", ttl / 1000 + 2 * ARRIVAL_TIMEOUT_SECONDS
        )
        if left:
            raise FailedPrecondition(
                f"{left} messages have not left {source} after its time; can {self._queue.name} be dead-lettered from?"
            )
        await self._broker.delete(source, if_empty=False)

    async def _hand_over(self, source: str, target: str) -> None:
        """First to both, then to one: nothing that is published meanwhile misses both."""
        routes = self._routes if target == self._holding else [*self._routes, *self._needs]
        await self._broker.bind(replace(each, queue=target) for each in routes)
        self._report(f"bound {target}")
        await self._broker.unbind(replace(each, queue=source) for each in self._routes)
        self._report(f"unbound {source}")

    def _move(self, step: str, total: int) -> Callable[[int, int], None]:
        """Told after each ack; what earlier steps moved is not in it."""
        before = self.again

        def on_moved(moved: int, again: int) -> None:
            self.moved, self.again = moved, before + again
            self._on_progress(
                MigrationProgress(step=step, moved=moved, total=total, redelivered=again)
            )

        self.moved = 0
        return on_moved

    async def _depth(self, name: str) -> QueueDepth:
        depth = await self._broker.depth(name)
        if depth is None:
            raise Aborted(f"{name} is gone meanwhile; run this again")
        return depth

    def _report(self, step: str) -> None:
        self._on_progress(MigrationProgress(step=step))
