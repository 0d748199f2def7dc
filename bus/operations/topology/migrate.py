"""Recreation of a queue with other arguments. A migration queue keeps the messages.

- Out: declare the migration queue, move messages and bindings to it, delete the old queue.
- Back: declare the new queue, move messages and bindings to it, delete the migration queue.

The messages of a retry tier are not moved. The routing key of a message in a retry tier names the
queue to which the message returns. A move would lose the routing key. The migration queue of a
retry tier is also a retry tier. The messages leave both queues when their time-to-live ends.

Each run reads the state of the migration from the broker, so a new run continues an interrupted
migration. While the bindings move, the source queue and the target queue are bound. A message that
is published during this time reaches at least one of these queues, and can reach both queues.
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
"""Seconds between two checks while the migration waits for a condition."""
TOTALS_AGE_SECONDS = 6.0
"""Maximum age of a queue's totals, in seconds.

RabbitMQ renews the totals every 5 s (its `quorum_tick_interval`).
"""
ARRIVAL_TIMEOUT_SECONDS = 15.0
"""Maximum seconds for dead letters to reach their target, or for workers to finish messages."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MigrationProgress:
    """The current step of a migration, and the counts of this step."""

    step: str
    moved: int = 0
    """Messages moved in this step."""
    total: int = 0
    """Messages in the queue when this step began. More messages can arrive later."""
    redelivered: int = 0
    """Moved messages that can exist twice. The copies have the header `redelivered`."""


Report = Callable[[MigrationProgress], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class MigrationResult:
    """The counts of one run of a migration."""

    moved: int
    """Messages that this run moved back into the queue."""
    redelivered: int
    """Messages that can exist twice, because this run moved them out or back."""


async def migrate(
    name: str,
    required: RequiredTopology,
    settings: Settings,
    *,
    wait: float | None = None,
    report: Report = lambda _: None,
) -> MigrationResult | None:
    """Create the queue `name` again. The new queue has the arguments that `required` specifies.

    A second run continues an interrupted migration.

    Args:
        name: The queue.
        required: The topology with the new arguments.
        settings: The settings with the broker's address.
        wait: Maximum seconds to wait until the consumers have finished the remaining messages and
            stopped. During the wait, new messages go to the migration queue. If None, a queue with
            consumers is not migrated.
        report: Function that is called with the progress.

    Returns:
        The counts, or None if the queue already has these arguments.

    Raises:
        FailedPrecondition: The queue has consumers, or messages would be lost.
        Aborted: The queue still has consumers after `wait` seconds.
        NotFound: The routers do not require the queue, or the broker does not have it.
        BusError: The broker cannot be read; see `read_broker_state`.
    """
    queue = required.queue(name)
    state = await read_broker_state(settings)
    async with open_admin_session(settings) as broker:
        migration = Migration(broker, queue, state, required, settings, report)
        if migration.is_right and not migration.is_interrupted:
            return None
        if name not in state.queues and not migration.is_interrupted:
            raise NotFound(f"queue {name} does not exist. Run `bus topology apply` to create it.")
        if name in state.queues and not migration.is_right:
            await migration.move_out(wait)
        await migration.move_back()
    return MigrationResult(moved=migration.moved, redelivered=migration.redelivered)


class Migration:
    """The migration of one queue."""

    def __init__(
        self,
        broker: AdminSession,
        queue: Queue,
        state: BrokerState,
        required: RequiredTopology,
        settings: Settings,
        report: Report,
    ) -> None:
        self._broker = broker
        self._queue = queue
        self._name = queue.name
        self._migration_name = migration_queue(queue.name)
        self._state = state
        self._settings = settings
        self._on_progress = report
        differences = diff(replace(required, topology=Topology(queues=(queue,))), state)
        self.is_right = queue.name in state.queues and not differences.having("different")
        """True if the queue exists with the required arguments."""
        self.is_interrupted = self._migration_name in state.queues
        """True if the migration queue exists, because an earlier migration was interrupted."""
        names = {self._name, self._migration_name}
        routes = {
            replace(binding, queue=self._name)
            for binding in state.bindings
            if binding.queue in names
        }
        self._routes = sorted(routes, key=lambda binding: (binding.exchange, binding.routing_key))
        self._missing_routes = [
            binding
            for binding in required.topology.bindings
            if binding.queue == self._name and binding not in routes
        ]
        self._exchanges = Topology(exchanges=required.topology.exchanges)
        self._is_retry_tier = queue.role == "retry"
        (durable_queue,) = migration_topology(queue.name).queues
        self._migration_queue = (
            replace(queue, name=self._migration_name) if self._is_retry_tier else durable_queue
        )
        self.moved = self.redelivered = 0

    # --- Moving out -------------------------------------------------------------------------------

    async def move_out(self, wait: float | None) -> None:
        """Move the messages into the migration queue, and delete the old queue."""
        consumers = (await self._depth(self._name)).consumers
        if consumers and wait is None:
            raise FailedPrecondition(
                f"queue {self._name} has {consumers} consumers. "
                "Stop the workers first, or use --wait SECONDS."
            )
        await self._broker.declare(Topology(queues=(self._migration_queue,)))
        await self._check_migration_queue()
        self._report("the migration queue is declared")
        if consumers:
            await self._hand_over(self._name, self._migration_name)
            await self._wait_for_consumers_to_stop(wait or 0)
        await self._empty_and_delete(self._name, self._migration_name, hold=True)
        self._report("the old queue is deleted")

    async def _check_migration_queue(self) -> None:
        """Check that the migration queue is safe. A policy can make the migration queue unsafe."""
        state = await read_broker_state(self._settings)
        required = RequiredTopology(
            topology=Topology(queues=(self._migration_queue,)), services=frozenset(), attempts={}
        )
        differences = diff(required, state).having("different", "unsafe")
        if differences:
            raise FailedPrecondition(
                f"queue {self._migration_name} could lose messages during the migration. "
                f"Fix these differences: {'; '.join(map(str, differences))}"
            )

    async def _wait_for_consumers_to_stop(self, wait: float) -> None:
        """Wait until the consumers stop. New messages already go to the migration queue."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + wait
        while (depth := await self._depth(self._name)).consumers:
            if loop.time() > deadline:
                raise Aborted(
                    f"queue {self._name} still has {depth.consumers} consumers after {wait:g} s, "
                    f"and new messages wait in {self._migration_name}. "
                    "Stop the workers, and run the command again."
                )
            self._on_progress(
                MigrationProgress(
                    step=f"waiting for {depth.consumers} consumers to stop, "
                    f"{depth.ready} messages left"
                )
            )
            await asyncio.sleep(POLL_INTERVAL_SECONDS)

    async def _check_no_consumers(self) -> None:
        """Check that the migration is the only consumer of the queue.

        A quorum queue allows other consumers. If the queue were deleted, the messages that other
        consumers hold would be deleted too.
        """
        consumers = (await self._depth(self._name)).consumers - 1
        if consumers > 0:
            raise FailedPrecondition(
                f"queue {self._name} has {consumers} new consumers. "
                "Stop the workers, and run the command again."
            )

    async def _check_no_messages_left(self) -> None:
        """Check whether the queue still holds messages that the migration cannot consume.

        If the queue were deleted, these messages would be deleted too. The broker does not deliver
        them to the migration, but counts them in the queue's totals:

        - Quorum queue: dead letters that no queue accepts.
        - Classic queue: unacked messages of a worker that is stopping and has already cancelled
          its consumers. In a quorum queue such a worker still counts as a consumer.
        """
        queue = self._state.queues[self._name]
        if queue.kind == "classic":
            left = await self._count_left(
                self._name, "workers to finish their messages", ARRIVAL_TIMEOUT_SECONDS
            )
            if left:
                raise FailedPrecondition(
                    f"queue {self._name} has {left} messages that a stopping worker still holds. "
                    "Wait until the worker has ended, and run the command again."
                )
        elif queue.arguments.get("x-dead-letter-strategy") == "at-least-once":
            left = await self._count_left(
                self._name, "dead letters in flight", ARRIVAL_TIMEOUT_SECONDS
            )
            if left:
                raise FailedPrecondition(
                    f"queue {self._name} has {left} dead letters in flight, and their target does "
                    "not accept them. Create the target, wait 3 minutes until RabbitMQ has "
                    "tried again, and run the command again."
                )

    async def _count_left(self, name: str, condition: str, seconds: float) -> int:
        """Wait at most `seconds` until a queue is empty. Return the number of messages left.

        The totals can be old. So the queue counts as empty only if the broker reported no messages
        for `TOTALS_AGE_SECONDS`.
        """
        loop = asyncio.get_running_loop()
        deadline, empty_since = loop.time() + seconds, loop.time()
        while loop.time() - empty_since < TOTALS_AGE_SECONDS:
            left = max(
                (await self._depth(name)).ready, (await queue_totals(self._settings)).get(name, 0)
            )
            if left:
                empty_since = loop.time()
            if left and loop.time() > deadline:
                return left
            self._report(f"waiting for {condition}")
            await asyncio.sleep(POLL_INTERVAL_SECONDS)
        return 0

    # --- Moving back ------------------------------------------------------------------------------

    async def move_back(self) -> None:
        """Declare the new queue, move the messages into it, and delete the migration queue."""
        await self._broker.declare(self._exchanges | Topology(queues=(self._queue,)))
        self._report("the new queue is declared")
        if await self._broker.depth(self._migration_name) is not None:
            await self._empty_and_delete(self._migration_name, self._name, hold=False)
            self._report("the migration queue is deleted")

    # --- Both directions --------------------------------------------------------------------------

    async def _empty_and_delete(self, source: str, target: str, *, hold: bool) -> None:
        """Move the messages and the bindings of `source` to `target`, and delete `source`."""
        if self._is_retry_tier:
            await self._drain_retry_tier(source, target)
            return
        total = (await self._depth(source)).ready
        carriage = CopyOptions(hold=hold, keep_deaths=self._queue.role == "dead")
        async with self._broker.shovel(
            source, target, carriage, self._track_moved(f"moving to {target}", total)
        ) as moving:
            # To keep the order of the messages, move the bindings only after the messages.
            await moving.wait_moved(total)
            await self._hand_over(source, target)
            await moving.wait_empty()
            if hold:
                await self._check_no_consumers()
                await self._check_no_messages_left()
                await moving.wait_empty()
            self._report(f"{source} is empty")
            await self._broker.delete(
                source, if_empty=hold and self._state.queues[source].kind == "classic"
            )

    async def _drain_retry_tier(self, source: str, target: str) -> None:
        await self._hand_over(source, target)
        actual = self._state.queues.get(source)
        ttl = (actual.arguments if actual else self._queue.arguments).get("x-message-ttl")
        if not isinstance(ttl, int):
            raise FailedPrecondition(
                f"queue {source} has no x-message-ttl, so its messages do not leave by themselves. "
                "Move them by hand."
            )
        left = await self._count_left(
            source, f"messages to leave {source}", ttl / 1000 + 2 * ARRIVAL_TIMEOUT_SECONDS
        )
        if left:
            raise FailedPrecondition(
                f"queue {source} still holds {left} messages after its x-message-ttl. "
                f"Check that {self._queue.name} can dead-letter its messages."
            )
        await self._broker.delete(source, if_empty=False)

    async def _hand_over(self, source: str, target: str) -> None:
        """Move the bindings. To lose no message, bind `target` before `source` is unbound."""
        routes = (
            self._routes
            if target == self._migration_name
            else [*self._routes, *self._missing_routes]
        )
        await self._broker.bind(replace(binding, queue=target) for binding in routes)
        self._report(f"bound {target}")
        await self._broker.unbind(replace(binding, queue=source) for binding in self._routes)
        self._report(f"unbound {source}")

    def _track_moved(self, step: str, total: int) -> Callable[[int, int], None]:
        """Return the callback that counts and reports the messages moved in this step.

        The shovel calls the callback after each ack. `moved` starts at 0 in each step.
        """
        before = self.redelivered

        def on_moved(moved: int, redelivered: int) -> None:
            self.moved, self.redelivered = moved, before + redelivered
            self._on_progress(
                MigrationProgress(step=step, moved=moved, total=total, redelivered=redelivered)
            )

        self.moved = 0
        return on_moved

    async def _depth(self, name: str) -> QueueDepth:
        depth = await self._broker.depth(name)
        if depth is None:
            raise Aborted(f"queue {name} was deleted during the migration. Run the command again.")
        return depth

    def _report(self, step: str) -> None:
        self._on_progress(MigrationProgress(step=step))
