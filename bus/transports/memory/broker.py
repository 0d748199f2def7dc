"""An in-memory model of a RabbitMQ 3.10 broker.

It models exchanges, queues and failures. Its timers use the clock of the running event loop.
"""

import asyncio
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Protocol

from bus.errors import ConnectionLost, FailedPrecondition, NotFound, TopologyMismatch, Unavailable
from bus.messaging.ports.transport import Accepted, Nacked, PublishOutcome, Returned
from bus.messaging.topology.addresses import Address
from bus.messaging.topology.model import Binding, Queue, Topology
from bus.transports.memory.activity import Activity
from bus.transports.memory.connection import MemoryConnection
from bus.transports.memory.dead_lettering import DeadLetterWorker, at_least_once
from bus.transports.memory.queue import MemoryQueue, QueueOwner
from bus.transports.memory.routing import Routes, difference, mismatch
from bus.transports.memory.stored_message import Reason, StoredMessage, died, in_cycle
from bus.transports.wire_format import AmqpMessage

__all__ = ["MemoryBroker"]


class SupervisedConsumer(Protocol):
    """The properties of a client's consumer that the broker reads."""

    @property
    def name(self) -> str:
        """Name of the queue."""
        ...

    @property
    def is_supervised(self) -> bool:
        """True if the client registers the consumer again each time that it ends."""
        ...


class MemoryBroker:
    """A model broker. All its transports run in one event loop.

    A test can cause failures with these methods: `stop` and `start`, `drop_all`, `block` and
    `unblock`, `swallow_confirms`, `cancel_consumers`, `delete_queue`, `limit`.

    Args:
        clock: Returns the wall clock's time in seconds since the epoch.
    """

    def __init__(self, *, clock: Callable[[], float] = time.time) -> None:
        self.clock = clock
        self.activity = Activity()
        """Notices of each change in the queues, for a test that waits."""
        self._routes = Routes()
        self._queues: dict[str, MemoryQueue] = {}
        self._workers: dict[str, DeadLetterWorker] = {}
        self._owners: dict[str, MemoryConnection] = {}
        self._connections: list[MemoryConnection] = []
        self._supervised: list[SupervisedConsumer] = []
        self._unblocked = asyncio.Event()
        self._unblocked.set()
        self._running = True
        self._confirms_to_swallow = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        """The event loop of the queues' timers."""

    # --- Operations of a client ---

    def check_loop(self) -> None:
        """Check that the running event loop is the loop of all earlier connections.

        Raises:
            FailedPrecondition: The broker belongs to another event loop.
        """
        self._loop = self._loop or asyncio.get_running_loop()
        if self._loop is not asyncio.get_running_loop():
            raise FailedPrecondition(
                "the model broker belongs to another event loop, because its queues have timers. "
                "Create a MemoryBroker in each event loop."
            )

    def connect(self) -> MemoryConnection:
        """Open a connection. Raise `Unavailable` while the broker is stopped."""
        if not self._running:
            raise Unavailable("the model broker is stopped. Call its `start` method.")
        connection = MemoryConnection(self)
        self._connections.append(connection)
        return connection

    def declare(self, topology: Topology, connection: MemoryConnection) -> None:
        """Declare exchanges, queues and bindings.

        Raises:
            TopologyMismatch: An exchange or queue already exists with different arguments.
            FailedPrecondition: The exchange or queue of a binding does not exist.
            Unavailable: An exclusive queue belongs to another connection.
        """
        for exchange in topology.exchanges:
            self._routes.declare(exchange)
        for queue in topology.queues:
            self._declare_queue(queue, connection)
        for binding in topology.bindings:
            self.bind(binding)

    def publish(self, wire: AmqpMessage, address: Address) -> PublishOutcome:
        """Route one message to its queues.

        Raises:
            ConnectionLost: The exchange does not exist. RabbitMQ closes the channel if
                an exchange does not exist.
        """
        if address.exchange not in self._routes:
            raise ConnectionLost(
                f"the broker closed the channel: exchange '{address.exchange}' does not exist",
                maybe_executed=True,
            )
        message = StoredMessage(
            wire=wire, exchange=address.exchange, routing_key=address.routing_key
        )
        targets = self._targets(address.exchange, address.routing_key)
        if not targets and address.mandatory:
            return Returned(reason="NO_ROUTE")
        full = [queue.name for queue in targets if not queue.put(replace(message))]
        return (
            Nacked(reason=f"the broker refused the message: {', '.join(full)} is full")
            if full
            else Accepted()
        )

    def supervise(self, consumer: SupervisedConsumer) -> None:
        """Add a consumer that its client registers again each time that it ends."""
        self._supervised = [each for each in self._supervised if each.is_supervised]
        self._supervised.append(consumer)

    def swallows_confirm(self) -> bool:
        """Return True if the broker must not send the next confirm.

        Each call that returns True reduces the number of confirms to swallow by one.
        """
        swallows = self._confirms_to_swallow > 0
        self._confirms_to_swallow -= swallows
        return swallows

    def closed(self, connection: MemoryConnection) -> None:
        """Remove a closed connection. Delete the connection's exclusive queues."""
        if connection in self._connections:
            self._connections.remove(connection)
        for name in [name for name, owner in self._owners.items() if owner is connection]:
            self.delete_queue(name)

    async def unblocked(self) -> None:
        """Wait until no alarm blocks publishers. The method has no timeout."""
        await self._unblocked.wait()

    # --- Faults ---

    def stop(self) -> None:
        """Stop the broker.

        The broker loses all connections and all exclusive queues, as in a restart of RabbitMQ.
        Classic queues lose their transient messages.
        """
        self._running = False
        self.drop_all("the broker was stopped")
        for queue in self._queues.values():
            queue.forget_transient()
        self.activity.changed()

    def start(self) -> None:
        """Start the broker again after `stop`."""
        self._running = True

    def drop_all(self, reason: str = "the connection was dropped") -> None:
        """Close all connections. Clients connect again by themselves.

        Args:
            reason: Text that the error messages of the clients contain.
        """
        for connection in [*self._connections]:
            connection.close(reason)

    def block(self) -> None:
        """Raise an alarm. Publishers must wait. Deliveries and acks continue."""
        self._unblocked.clear()

    def unblock(self) -> None:
        """Clear the alarm."""
        self._unblocked.set()

    @property
    def blocked(self) -> bool:
        """True if an alarm blocks publishers."""
        return not self._unblocked.is_set()

    def swallow_confirms(self, count: int = 1) -> None:
        """Accept the next `count` messages that need a confirm, but do not send their confirms.

        Args:
            count: Number of confirms that are not sent. The numbers of several calls add up.
        """
        self._confirms_to_swallow += count

    def cancel_consumers(self, queue: str) -> None:
        """Cancel all consumers of a queue, as RabbitMQ does when the queue's leader fails.

        Args:
            queue: The queue's name.

        Raises:
            NotFound: The queue does not exist.
        """
        for consumer in [*self.queue(queue).consumers]:
            consumer.cancelled()

    def delete_queue(self, name: str) -> None:
        """Delete a queue if it exists. Its messages and bindings are deleted with it.

        The consumers of the queue are cancelled.

        Args:
            name: The queue's name.
        """
        queue = self._queues.pop(name, None)
        if queue is None:
            return
        queue.stop()
        self._workers.pop(name).stop()
        self._owners.pop(name, None)
        self._routes.forget(name)
        for consumer in [*queue.consumers]:
            consumer.cancelled()

    def limit(self, name: str, length: int | None) -> None:
        """Limit the length of a queue. A policy with `overflow=reject-publish` has the same effect.

        Args:
            name: The queue's name.
            length: The policy's `max-length`, or None for no limit.

        Raises:
            NotFound: The queue does not exist.
        """
        queue = self.queue(name)
        queue.limit, queue.overflow = length, "reject-publish"
        queue.pump()

    def bind(self, binding: Binding) -> None:
        """Bind a queue to an exchange.

        Args:
            binding: The exchange, queue and routing key.

        Raises:
            FailedPrecondition: The exchange or the queue does not exist.
        """
        if binding.queue not in self or binding.exchange not in self._routes:
            raise FailedPrecondition(
                f"exchange '{binding.exchange}' or queue '{binding.queue}' does not exist"
            )
        self._routes.bind(binding)

    def unbind(self, binding: Binding) -> None:
        """Remove a binding if it exists.

        Args:
            binding: The exchange, queue and routing key.
        """
        self._routes.unbind(binding)

    # --- Inspection ---

    def queue(self, name: str) -> MemoryQueue:
        """Return a queue.

        Args:
            name: The queue's name.

        Raises:
            NotFound: The queue does not exist.
        """
        try:
            return self._queues[name]
        except KeyError:
            raise NotFound(f"queue '{name}' does not exist") from None

    def __contains__(self, queue: str) -> bool:
        return queue in self._queues

    def depth(self, name: str) -> int:
        """Return the number of ready messages in a queue.

        Args:
            name: The queue's name.

        Raises:
            NotFound: The queue does not exist.
        """
        return self.queue(name).depth

    def consumers(self, name: str) -> int:
        """Return the number of consumers that are registered at a queue.

        Args:
            name: The queue's name.

        Raises:
            NotFound: The queue does not exist.
        """
        return len(self.queue(name).consumers)

    def unacked(self, name: str) -> int:
        """Return the number of messages of a queue that were delivered and are not settled.

        Args:
            name: The queue's name.
        """
        return sum(connection.unsettled(name) for connection in self._connections)

    def is_consumed(self, name: str) -> bool:
        """Return True if a client consumes a queue.

        A client that has lost its consumer counts, because it registers the consumer again.

        Args:
            name: The queue's name.
        """
        return any(each.name == name and each.is_supervised for each in self._supervised)

    @property
    def queues(self) -> tuple[str, ...]:
        """The names of all queues."""
        return tuple(self._queues)

    def peek(self, name: str) -> list[AmqpMessage]:
        """Return the ready messages of a queue in order. The messages stay in the queue.

        Args:
            name: The queue's name.

        Raises:
            NotFound: The queue does not exist.
        """
        queue = self.queue(name)
        return [queue.outgoing(message) for message in queue.peek()]

    # --- Internals ---

    def _declare_queue(self, declared: Queue, connection: MemoryConnection) -> None:
        existing = self._queues.get(declared.name)
        if existing is None:
            self._create(declared, connection)
            return
        if self._owners.get(declared.name, connection) is not connection:
            raise Unavailable(f"cannot obtain exclusive access to locked queue '{declared.name}'")
        if changed := difference(_arguments(declared), _arguments(existing.declared)):
            argument, requested, current = changed
            raise TopologyMismatch(mismatch(argument, "queue", declared.name, requested, current))
        existing.touch()

    def _create(self, declared: Queue, connection: MemoryConnection) -> None:
        owner = QueueOwner(
            dead_letter=self._dead_letter,
            expired=lambda queue: self.delete_queue(queue.name),
            changed=self.activity.changed,
        )
        queue = self._queues[declared.name] = MemoryQueue(declared, owner)
        self._workers[declared.name] = DeadLetterWorker(queue, self._forward)
        if declared.exclusive:
            self._owners[declared.name] = connection

    def _targets(self, exchange: str, routing_key: str) -> list[MemoryQueue]:
        names = self._routes.targets(exchange, routing_key)
        return [self._queues[name] for name in names if name in self._queues]

    def _dead_letter(self, queue: MemoryQueue, message: StoredMessage, reason: Reason) -> None:
        arguments = queue.declared.arguments
        if "x-dead-letter-exchange" not in arguments:
            return
        key = arguments.get("x-dead-letter-routing-key")
        dead = died(
            message,
            queue=queue.name,
            reason=reason,
            routing_key=None if key is None else str(key),
            at=int(self.clock()),
        )
        dead.exchange = str(arguments["x-dead-letter-exchange"])
        if at_least_once(queue):
            self._workers[queue.name].take(dead)
        else:
            self._forward(dead)

    def _forward(self, message: StoredMessage) -> bool:
        """Publish a dead letter.

        Return True if the dead letter has at least one target queue, and all target queues
        accepted the dead letter.
        """
        if message.exchange not in self._routes:
            return False
        targets = self._targets(message.exchange, message.routing_key)
        accepted = [
            queue.put(replace(message)) for queue in targets if not in_cycle(message, queue.name)
        ]
        return bool(accepted) and all(accepted)


def _arguments(queue: Queue) -> dict[str, object]:
    return {"durable": queue.durable, "exclusive": queue.exclusive, **queue.arguments}
