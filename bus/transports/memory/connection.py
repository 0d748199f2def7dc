"""The connections of clients to the model broker, and the channels of these connections."""

import asyncio
from collections.abc import Callable
from typing import Protocol

from bus.errors import ConnectionLost
from bus.messaging.ports.transport import PublishOutcome
from bus.messaging.topology.addresses import Address
from bus.transports.memory.activity import Activity
from bus.transports.memory.queue import MemoryQueue
from bus.transports.memory.stored_message import StoredMessage
from bus.transports.wire_format import AmqpMessage

__all__ = ["MemoryChannel", "MemoryConnection"]


class BrokerPort(Protocol):
    """The part of `MemoryBroker` that a connection and its channels use."""

    activity: Activity

    def publish(self, wire: AmqpMessage, address: Address) -> PublishOutcome:
        """Route one message to its queues."""
        ...

    def swallows_confirm(self) -> bool:
        """Return True if the broker must not send the next confirm."""
        ...

    def queue(self, name: str) -> MemoryQueue:
        """Return a queue by name, or raise `NotFound`."""
        ...

    def closed(self, connection: "MemoryConnection") -> None:
        """Remove a closed connection."""
        ...


class MemoryConnection:
    """A client's connection to the model broker."""

    def __init__(self, broker: BrokerPort) -> None:
        self._broker = broker
        self._loop = asyncio.get_running_loop()
        self._channels: list[MemoryChannel] = []
        self._unconfirmed: set[asyncio.Future[PublishOutcome]] = set()
        self.ended: asyncio.Future[str] = self._loop.create_future()
        """Future whose result is the reason why the connection was closed."""

    @property
    def alive(self) -> bool:
        """True if the connection is open."""
        return not self.ended.done()

    def send(self, wire: AmqpMessage, address: Address) -> PublishOutcome:
        """Publish without a confirm."""
        return self._broker.publish(wire, address)

    def send_confirmed(self, wire: AmqpMessage, address: Address) -> asyncio.Future[PublishOutcome]:
        """Publish, and return a future that waits for the confirm.

        The result of the future is the outcome. If the connection is closed before the confirm,
        the future raises `ConnectionLost`.
        """
        confirm: asyncio.Future[PublishOutcome] = self._loop.create_future()
        outcome = self._broker.publish(wire, address)
        self._unconfirmed.add(confirm)
        confirm.add_done_callback(self._unconfirmed.discard)
        if not self._broker.swallows_confirm():
            self._loop.call_soon(_resolve, confirm, outcome)
        return confirm

    def channel(self) -> "MemoryChannel":
        """Open a channel."""
        channel = MemoryChannel(self._broker)
        self._channels = [opened for opened in self._channels if opened.alive] + [channel]
        return channel

    def unsettled(self, queue: str) -> int:
        """Return the number of messages from `queue` that are not settled on this connection."""
        return sum(channel.unsettled for channel in self._channels if channel.reads(queue))

    def close(self, reason: str) -> None:
        """Close the connection, and requeue unacked messages.

        The futures of missing confirms raise `ConnectionLost`, because the outcomes of their
        publishes are unknown.
        """
        if not self.alive:
            return
        self.ended.set_result(reason)
        for confirm in [*self._unconfirmed]:
            _fail(
                confirm,
                ConnectionLost(
                    f"{reason} before the broker confirmed the message", maybe_executed=True
                ),
            )
        for channel in self._channels:
            channel.detach()
        for channel in self._channels:
            channel.close(reason)
        self._broker.closed(self)


class MemoryChannel:
    """A channel of a connection. A channel has at most one consumer."""

    def __init__(self, broker: BrokerPort) -> None:
        self._broker = broker
        self._loop = asyncio.get_running_loop()
        self._unacked: dict[int, StoredMessage] = {}
        self._in_transit = 0
        self._queue: MemoryQueue | None = None
        self._on_message: OnMessage = _ignore
        self._prefetch = 0
        self._alive = True
        self.acks = True
        self.ended: asyncio.Future[str] = self._loop.create_future()
        """Future whose result is the reason why the consumer ended."""

    def consume(self, queue: str, on_message: "OnMessage", *, prefetch: int, acks: bool) -> None:
        """Register the consumer. Raise `NotFound` if the queue does not exist."""
        self._on_message, self._prefetch, self.acks = on_message, prefetch, acks
        self._queue = self._broker.queue(queue)
        self._queue.attach(self)

    @property
    def alive(self) -> bool:
        """True if the channel is open. Only an open channel can ack its messages."""
        return self._alive

    @property
    def consuming(self) -> bool:
        """True if this channel's consumer is registered at the broker."""
        return self._queue is not None and self in self._queue.consumers

    def reads(self, queue: str) -> bool:
        """Return True if the consumer of this channel was registered at this queue."""
        return self._queue is not None and self._queue.name == queue

    @property
    def unsettled(self) -> int:
        """The number of messages that the client has not settled yet.

        If the consumer does not ack, it is the number that the client has not received yet.
        """
        return len(self._unacked) if self.acks else self._in_transit

    def has_room(self) -> bool:
        """Return True if the prefetch allows another delivery, or the consumer does not ack."""
        return not self.acks or self._prefetch == 0 or len(self._unacked) < self._prefetch

    def take(self, message: StoredMessage) -> None:
        """Accept a message from the queue. The client receives it in the loop's next turn."""
        if self.acks:
            self._unacked[id(message)] = message
        self._in_transit += 1
        self._loop.call_soon(self._deliver, message)

    def outgoing(self, message: StoredMessage) -> AmqpMessage:
        """Return the message with the headers that the queue adds when it delivers the message."""
        return message.wire if self._queue is None else self._queue.outgoing(message)

    def cancelled(self) -> None:
        """End the consumer, because the broker cancelled it."""
        self.detach()
        self._end("the broker cancelled the consumer")

    def ack(self, message: StoredMessage) -> bool:
        """Ack a message. Return False if the message is not unacked on this channel."""
        if self._unacked.pop(id(message), None) is None or self._queue is None:
            return False
        self._queue.pump()
        return True

    def requeue(self, message: StoredMessage) -> bool:
        """Requeue a message. Return False if the message is not unacked on this channel."""
        if self._unacked.pop(id(message), None) is None or self._queue is None:
            return False
        self._queue.requeue(message)
        self._broker.activity.changed()  # a deleted queue does not report it
        return True

    def reject(self, message: StoredMessage) -> bool:
        """Dead-letter a message. Return False if the message is not unacked on this channel."""
        if self._unacked.pop(id(message), None) is None or self._queue is None:
            return False
        self._queue.reject(message)
        self._broker.activity.changed()  # as in `requeue`
        return True

    def detach(self) -> None:
        """Stop deliveries. Delivered messages can still be acked."""
        if self._queue is not None:
            self._queue.detach(self)

    def close(self, reason: str) -> None:
        """Close the channel. Requeue the channel's unacked messages in order."""
        self._alive = False
        self.detach()
        for message in [*self._unacked.values()]:
            self.requeue(message)
        self._end(reason)

    def _deliver(self, message: StoredMessage) -> None:
        self._in_transit -= 1
        if self._alive and not self.consuming and self.acks:
            self.requeue(message)
        elif self._alive:
            self._on_message(self, message)
        self._broker.activity.changed()

    def _end(self, reason: str) -> None:
        if not self.ended.done():
            self.ended.set_result(reason)


OnMessage = Callable[[MemoryChannel, StoredMessage], None]


def _ignore(_channel: MemoryChannel, _message: StoredMessage) -> None: ...


def _resolve(confirm: asyncio.Future[PublishOutcome], outcome: PublishOutcome) -> None:
    if not confirm.done():
        confirm.set_result(outcome)


def _fail(confirm: asyncio.Future[PublishOutcome], error: Exception) -> None:
    if not confirm.done():
        confirm.set_exception(error)
