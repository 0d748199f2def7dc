"""The model broker: executes topologies and fails the way RabbitMQ 3.10 fails, on the running loop's clock."""

import asyncio
import time
from collections.abc import Callable
from dataclasses import replace

from bus.errors import ConnectionLost, FailedPrecondition, NotFound, TopologyMismatch, Unavailable
from bus.messaging.ports.transport import Accepted, Nacked, PublishOutcome, Returned
from bus.messaging.topology.addresses import Address
from bus.messaging.topology.model import Binding, Queue, Topology
from bus.transports.memory.connection import MemoryConnection
from bus.transports.memory.dead_lettering import DeadLetterWorker, at_least_once
from bus.transports.memory.queue import MemoryQueue, QueueOwner
from bus.transports.memory.routing import Routes, difference, mismatch
from bus.transports.memory.stored_message import Reason, StoredMessage, died, in_cycle
from bus.transports.wire_format import AmqpMessage

__all__ = ["MemoryBroker"]


class MemoryBroker:
    """One broker, shared by the transports of one event loop; `clock` is the wall clock in seconds.

    Faults: `stop` and `start`, `drop_all`, `block` and `unblock`, `swallow_confirms`, `cancel_consumers`, `delete_queue`, `limit`.
    """

    def __init__(self, *, clock: Callable[[], float] = time.time) -> None:
        self.clock = clock
        self._routes = Routes()
        self._queues: dict[str, MemoryQueue] = {}
        self._workers: dict[str, DeadLetterWorker] = {}
        self._owners: dict[str, MemoryConnection] = {}
        self._connections: list[MemoryConnection] = []
        self._unblocked = asyncio.Event()
        self._unblocked.set()
        self._running = True
        self._confirms_to_swallow = 0

    # --- what a client does ----------------------------------------------------------------------------------------

    def connect(self) -> MemoryConnection:
        """A new connection; `Unavailable` while the broker is stopped."""
        if not self._running:
            raise Unavailable("the model broker is stopped")
        connection = MemoryConnection(self)
        self._connections.append(connection)
        return connection

    def declare(self, topology: Topology, connection: MemoryConnection) -> None:
        """Make it exist; `TopologyMismatch` names what exists with other arguments."""
        for exchange in topology.exchanges:
            self._routes.declare(exchange)
        for queue in topology.queues:
            self._declare_queue(queue, connection)
        for binding in topology.bindings:
            self.bind(binding)

    def publish(self, wire: AmqpMessage, address: Address) -> PublishOutcome:
        """Route one message; `ConnectionLost` where the exchange does not exist, which RabbitMQ answers by closing the channel."""
        if address.exchange not in self._routes:
            raise ConnectionLost(
                f"the broker closed the channel: no exchange '{address.exchange}'",
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
            Nacked(reason=f"the broker refused it: {', '.join(full)} is full")
            if full
            else Accepted()
        )

    def swallows_confirm(self) -> bool:
        """Whether the confirm that is due now gets lost on its way."""
        swallows = self._confirms_to_swallow > 0
        self._confirms_to_swallow -= swallows
        return swallows

    def closed(self, connection: MemoryConnection) -> None:
        """A connection is gone, and its exclusive queues with it."""
        if connection in self._connections:
            self._connections.remove(connection)
        for name in [name for name, owner in self._owners.items() if owner is connection]:
            self.delete_queue(name)

    async def unblocked(self) -> None:
        """Returns once there is no alarm. Callers set the limit."""
        await self._unblocked.wait()

    # --- faults ----------------------------------------------------------------------------------------------------

    def stop(self) -> None:
        """Stop as a restart does: connections, exclusive queues and transient messages of classic queues are gone."""
        self._running = False
        self.drop_all("the broker was stopped")
        for queue in self._queues.values():
            queue.forget_transient()

    def start(self) -> None:
        """Accept connections again."""
        self._running = True

    def drop_all(self, reason: str = "the connection was dropped") -> None:
        """End all connections; clients come back by themselves."""
        for connection in [*self._connections]:
            connection.close(reason)

    def block(self) -> None:
        """Raise an alarm: publishing waits; deliveries and acks go on."""
        self._unblocked.clear()

    def unblock(self) -> None:
        """The alarm is over."""
        self._unblocked.set()

    @property
    def blocked(self) -> bool:
        """Whether an alarm blocks publishers."""
        return not self._unblocked.is_set()

    def swallow_confirms(self, count: int = 1) -> None:
        """Take the next `count` confirmed messages and lose their confirms."""
        self._confirms_to_swallow += count

    def cancel_consumers(self, queue: str) -> None:
        """End all consumers of a queue from the broker's side, as a failing leader does."""
        for consumer in [*self.queue(queue).consumers]:
            consumer.cancelled()

    def delete_queue(self, name: str) -> None:
        """Delete a queue with its messages, bindings and consumers; one that is not there is no error."""
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
        """A policy's `max-length` with `overflow=reject-publish`, or its removal."""
        queue = self.queue(name)
        queue.limit, queue.overflow = length, "reject-publish"
        queue.pump()

    def bind(self, binding: Binding) -> None:
        """Bind a queue to an exchange; `FailedPrecondition` where one does not exist."""
        if binding.queue not in self or binding.exchange not in self._routes:
            raise FailedPrecondition(
                f"no exchange '{binding.exchange}' or no queue '{binding.queue}'"
            )
        self._routes.bind(binding)

    def unbind(self, binding: Binding) -> None:
        """Remove a binding."""
        self._routes.unbind(binding)

    # --- inspection ------------------------------------------------------------------------------------------------

    def queue(self, name: str) -> MemoryQueue:
        """A queue by name; `NotFound`."""
        try:
            return self._queues[name]
        except KeyError:
            raise NotFound(f"no queue '{name}'") from None

    def __contains__(self, queue: str) -> bool:
        return queue in self._queues

    def depth(self, name: str) -> int:
        """Messages ready in a queue."""
        return self.queue(name).depth

    def consumers(self, name: str) -> int:
        """Consumers registered at a queue."""
        return len(self.queue(name).consumers)

    def peek(self, name: str) -> list[AmqpMessage]:
        """What is ready in a queue, in order; nothing is taken out."""
        queue = self.queue(name)
        return [queue.outgoing(message) for message in queue.peek()]

    # --- within ----------------------------------------------------------------------------------------------------

    def _declare_queue(self, declared: Queue, connection: MemoryConnection) -> None:
        known = self._queues.get(declared.name)
        if known is None:
            self._create(declared, connection)
            return
        if self._owners.get(declared.name, connection) is not connection:
            raise Unavailable(f"cannot obtain exclusive access to locked queue '{declared.name}'")
        if found := difference(_facts(declared), _facts(known.declared)):
            argument, wanted, current = found
            raise TopologyMismatch(mismatch(argument, "queue", declared.name, wanted, current))
        known.touch()

    def _create(self, declared: Queue, connection: MemoryConnection) -> None:
        owner = QueueOwner(
            dead_letter=self._dead_letter, expired=lambda queue: self.delete_queue(queue.name)
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
        """To the dead-letter exchange; whether each target took it, and there was one."""
        if message.exchange not in self._routes:
            return False
        targets = self._targets(message.exchange, message.routing_key)
        taken = [
            queue.put(replace(message)) for queue in targets if not in_cycle(message, queue.name)
        ]
        return bool(taken) and all(taken)


def _facts(queue: Queue) -> dict[str, object]:
    return {"durable": queue.durable, "exclusive": queue.exclusive, **queue.arguments}
