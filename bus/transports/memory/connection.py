"""One connection and its channels, as the model broker and a client see them."""

import asyncio
from collections.abc import Callable
from typing import Protocol

from bus.errors import ConnectionLost
from bus.messaging.ports.transport import PublishOutcome
from bus.messaging.topology.addresses import Address
from bus.transports.memory.queue import MemoryQueue
from bus.transports.memory.stored_message import StoredMessage
from bus.transports.wire_format import AmqpMessage

__all__ = ["MemoryChannel", "MemoryConnection"]


class BrokerPort(Protocol):
    """The broker, seen from a connection."""

    def publish(self, wire: AmqpMessage, address: Address) -> PublishOutcome:
        """Route one message."""
        ...

    def swallows_confirm(self) -> bool:
        """Whether the confirm that is due now gets lost."""
        ...

    def queue(self, name: str) -> MemoryQueue:
        """A queue by name; `NotFound`."""
        ...

    def closed(self, connection: "MemoryConnection") -> None:
        """A connection is gone."""
        ...


class MemoryConnection:
    """A client's connection."""

    def __init__(self, peer: BrokerPort) -> None:
        self._peer = peer
        self._loop = asyncio.get_running_loop()
        self._channels: list[MemoryChannel] = []
        self._unconfirmed: set[asyncio.Future[PublishOutcome]] = set()
        self.ended: asyncio.Future[str] = self._loop.create_future()
        """Why it is gone, once it is."""

    @property
    def alive(self) -> bool:
        """Whether it still carries anything."""
        return not self.ended.done()

    def send(self, wire: AmqpMessage, address: Address) -> PublishOutcome:
        """Publish without a confirm."""
        return self._peer.publish(wire, address)

    def send_confirmed(self, wire: AmqpMessage, address: Address) -> asyncio.Future[PublishOutcome]:
        """Publish; the outcome comes with the confirm, or `ConnectionLost` in its place."""
        confirm: asyncio.Future[PublishOutcome] = self._loop.create_future()
        outcome = self._peer.publish(wire, address)
        self._unconfirmed.add(confirm)
        confirm.add_done_callback(self._unconfirmed.discard)
        if not self._peer.swallows_confirm():
            self._loop.call_soon(_resolve, confirm, outcome)
        return confirm

    def channel(self) -> "MemoryChannel":
        """A new channel."""
        channel = MemoryChannel(self._peer)
        self._channels = [each for each in self._channels if each.alive] + [channel]
        return channel

    def close(self, reason: str) -> None:
        """It is gone: what is unacked goes back to its queues, what is unconfirmed stays unknown."""
        if not self.alive:
            return
        self.ended.set_result(reason)
        for confirm in [*self._unconfirmed]:
            _fail(
                confirm,
                ConnectionLost(f"{reason} before the broker had confirmed", maybe_executed=True),
            )
        for channel in self._channels:
            channel.detach()
        for channel in self._channels:
            channel.close(reason)
        self._peer.closed(self)


class MemoryChannel:
    """A channel with at most one consumer on it."""

    def __init__(self, peer: BrokerPort) -> None:
        self._peer = peer
        self._loop = asyncio.get_running_loop()
        self._unacked: dict[int, StoredMessage] = {}
        self._queue: MemoryQueue | None = None
        self._on_message: OnMessage = _ignore
        self._prefetch = 0
        self._alive = True
        self.acks = True
        self.ended: asyncio.Future[str] = self._loop.create_future()
        """Why its consumer ended, once it has."""

    def consume(self, queue: str, on_message: "OnMessage", *, prefetch: int, acks: bool) -> None:
        """Register the consumer; `NotFound` where the queue does not exist."""
        self._on_message, self._prefetch, self.acks = on_message, prefetch, acks
        self._queue = self._peer.queue(queue)
        self._queue.attach(self)

    @property
    def alive(self) -> bool:
        """Whether acks on it still mean anything."""
        return self._alive

    @property
    def consuming(self) -> bool:
        """Whether the broker has its consumer registered."""
        return self._queue is not None and self in self._queue.consumers

    def has_room(self) -> bool:
        """Whether its prefetch allows one more; without acks there is no limit."""
        return not self.acks or self._prefetch == 0 or len(self._unacked) < self._prefetch

    def take(self, message: StoredMessage) -> None:
        """One message from the queue; the client has it in the loop's next turn."""
        if self.acks:
            self._unacked[id(message)] = message
        self._loop.call_soon(self._hand_over, message)

    def outgoing(self, message: StoredMessage) -> AmqpMessage:
        """A message of its queue as it is delivered."""
        return message.wire if self._queue is None else self._queue.outgoing(message)

    def cancelled(self) -> None:
        """The broker ended the consumer."""
        self.detach()
        self._end("the broker cancelled the consumer")

    def ack(self, message: StoredMessage) -> bool:
        """Done with a message; False where the channel is gone, or knows nothing of it (any more)."""
        if self._unacked.pop(id(message), None) is None or self._queue is None:
            return False
        self._queue.pump()
        return True

    def requeue(self, message: StoredMessage) -> bool:
        """Back to the queue; False as for `ack`."""
        if self._unacked.pop(id(message), None) is None or self._queue is None:
            return False
        self._queue.requeue(message)
        return True

    def detach(self) -> None:
        """No further deliveries; what was delivered can still be acked."""
        if self._queue is not None:
            self._queue.detach(self)

    def close(self, reason: str) -> None:
        """It is gone: all that is unacked goes back, in order."""
        self._alive = False
        self.detach()
        for message in [*self._unacked.values()]:
            self.requeue(message)
        self._end(reason)

    def _hand_over(self, message: StoredMessage) -> None:
        if not self._alive:
            return
        if not self.consuming and self.acks:
            self.requeue(message)
        else:
            self._on_message(self, message)

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
