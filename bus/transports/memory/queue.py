"""The queues of the model broker: message order, limits, expiry and consumers.

Depending on `x-queue-type`, a queue behaves like a quorum queue or like a classic queue. The model
is RabbitMQ 3.10.
"""

import asyncio
from bisect import insort
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol

from bus.messaging.topology.model import Queue
from bus.transports.memory.stored_message import Reason, StoredMessage
from bus.transports.wire_format import PERSISTENT, AmqpMessage

__all__ = ["MemoryQueue", "QueueConsumer"]

SOFT_LIMIT = 0.8
"""Fraction of the length limit at which a full quorum queue accepts messages again.

In RabbitMQ, `LOW_LIMIT` in the module `rabbit_fifo` has this value.
"""


class QueueConsumer(Protocol):
    """The methods of a consumer that a queue calls."""

    @property
    def acks(self) -> bool:
        """True if the consumer acks. If False, the queue removes each message on delivery."""
        ...

    def has_room(self) -> bool:
        """Return True if the prefetch allows another delivery."""
        ...

    def take(self, message: StoredMessage) -> None:
        """Accept a message. The implementation must not call the queue."""
        ...

    def cancelled(self) -> None:
        """End this consumer, because the broker cancelled it."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueOwner:
    """The functions of the broker that a queue calls."""

    dead_letter: Callable[["MemoryQueue", StoredMessage, Reason], None]
    expired: Callable[["MemoryQueue"], None]
    """Function that is called when a queue has been unused for the time in `x-expires`."""
    changed: Callable[[], None]
    """Function that is called after the queue's messages or consumers have changed."""


class MemoryQueue:
    """A queue of the model broker.

    A method changes the queue before it returns. Consumers receive messages in the loop's next
    turn.
    """

    def __init__(self, declared: Queue, owner: QueueOwner) -> None:
        self.declared = declared
        self.limit = self._number("x-max-length")
        self.overflow = str(declared.arguments.get("x-overflow", "drop-head"))
        self.consumers: deque[QueueConsumer] = deque()
        self.discarded = 0
        """Number of dead letters of this queue that no other queue has accepted yet.

        The length limit includes them.
        """
        self._owner = owner
        self._loop = asyncio.get_running_loop()
        self._returned: deque[StoredMessage] = deque()
        self._ready: deque[StoredMessage] = deque()
        self._positions = 0
        self._refusing = False
        self._head_timer: asyncio.TimerHandle | None = None
        self._expiry_timer: asyncio.TimerHandle | None = None
        self._deleted = False
        self.touch()

    @property
    def name(self) -> str:
        """The queue's name."""
        return self.declared.name

    @property
    def quorum(self) -> bool:
        """True for a quorum queue, False for a classic queue."""
        return self.declared.arguments.get("x-queue-type") == "quorum"

    @property
    def depth(self) -> int:
        """The number of ready messages."""
        return len(self._returned) + len(self._ready)

    def peek(self) -> list[StoredMessage]:
        """Return the ready messages in order."""
        return [*self._returned, *self._ready]

    def outgoing(self, message: StoredMessage) -> AmqpMessage:
        """Return the message to deliver. A quorum queue adds the header `x-delivery-count`."""
        if not self.quorum or not message.returns:
            return message.wire
        return replace(
            message.wire, headers={**message.wire.headers, "x-delivery-count": message.returns}
        )

    # --- Messages ---

    def put(self, message: StoredMessage) -> bool:
        """Add a message. Return False if the queue is full and refuses the message."""
        if self._refuses():
            return False
        self._append(message)
        self.pump()
        self._drop_heads()
        return True

    def requeue(self, message: StoredMessage) -> None:
        """Requeue a delivered message, or dead-letter it if it exceeds the delivery limit.

        If the queue was deleted, the message is dropped.
        """
        if self._deleted:
            return
        message.returns += 1
        limit = self._number("x-delivery-limit")
        if self.quorum and limit is not None and message.returns > limit:
            self._owner.dead_letter(self, message, "delivery_limit")
        else:
            self._put_back(message, limited=limit is not None)
        self.pump()

    def reject(self, message: StoredMessage) -> None:
        """Dead-letter a delivered message. If the queue was deleted, the message is dropped."""
        if not self._deleted:
            self._owner.dead_letter(self, message, "rejected")
            self.pump()

    def pump(self) -> None:
        """Deliver messages to the consumers in turn.

        The method stops when no message is ready, or when no consumer has room for another message.
        """
        self._expire(late_only=True)
        while self.depth and (consumer := self._next_consumer()):
            consumer.take(self._pop())
            self._expire(late_only=True)
        self._update_refusing()
        self._watch_head()
        self._owner.changed()

    def forget_transient(self) -> None:
        """Drop the transient messages of a classic queue, as a restart of RabbitMQ does."""
        if not self.quorum:
            self._returned, self._ready = (
                deque(message for message in messages if message.wire.delivery_mode == PERSISTENT)
                for messages in (self._returned, self._ready)
            )

    def _append(self, message: StoredMessage) -> None:
        self._positions += 1
        message.position = self._positions
        message.expires_at = self._expiry(message)
        self._ready.append(message)

    def _pop(self) -> StoredMessage:
        return self._returned.popleft() if self._returned else self._ready.popleft()

    def _put_back(self, message: StoredMessage, *, limited: bool) -> None:
        """Insert a requeued message at the position that RabbitMQ 3.10 would choose.

        A classic queue restores the old position of the message. A quorum queue with a delivery
        limit inserts the message before all new messages. A quorum queue without a delivery limit
        appends the message at the end.
        """
        if not self.quorum:
            insort(self._returned, message, key=lambda stored: stored.position)
        elif limited:
            self._returned.append(message)
        else:
            self._ready.append(message)

    # --- Limits ---

    def _refuses(self) -> bool:
        """Return True if the queue refuses new messages.

        A classic queue checks its limit before it accepts a message. A quorum queue checks its
        limit after it has accepted a message, so it can hold one message more than the limit.
        """
        if self.limit is None or self.overflow != "reject-publish":
            return False
        return self._refusing if self.quorum else self.depth + 1 > self.limit

    def _update_refusing(self) -> None:
        count = self.depth + self.discarded
        if self.limit is None or count <= int(self.limit * SOFT_LIMIT):
            self._refusing = False
        elif count > self.limit:
            self._refusing = True

    def _drop_heads(self) -> None:
        while self.limit is not None and self.overflow == "drop-head" and self.depth > self.limit:
            self._owner.dead_letter(self, self._pop(), "maxlen")

    # --- Time ---

    def touch(self) -> None:
        """Restart the `x-expires` timer after a use. A queue with consumers has no timer."""
        expires_ms = self._number("x-expires")
        if self._expiry_timer:
            self._expiry_timer.cancel()
        if expires_ms is not None and not self.consumers:
            self._expiry_timer = self._loop.call_later(expires_ms / 1000, self._owner.expired, self)

    def stop(self) -> None:
        """Mark the queue as deleted. Delete all messages and stop the timers."""
        self._deleted = True
        self._returned.clear()
        self._ready.clear()
        for timer in (self._head_timer, self._expiry_timer):
            if timer:
                timer.cancel()
        self._owner.changed()

    def _expiry(self, message: StoredMessage) -> float | None:
        own = message.wire.expiration
        times = [int(own)] if own is not None and own.isdigit() else []
        if (common := self._number("x-message-ttl")) is not None:
            times.append(common)
        return self._loop.time() + min(times) / 1000 if times else None

    def _expire(self, *, late_only: bool = False) -> None:
        """Dead-letter the expired messages at the head of the queue.

        An expired message behind a message that has not expired stays in the queue, as in RabbitMQ.
        If `late_only` is True, a message that expires exactly now stays.
        So it can still be delivered.
        """
        now = self._loop.time()
        while (
            self.depth
            and (at := self._head().expires_at) is not None
            and (at < now or (at == now and not late_only))
        ):
            self._owner.dead_letter(self, self._pop(), "expired")

    def _watch_head(self) -> None:
        if self._head_timer:
            self._head_timer.cancel()
        if self.depth and (at := self._head().expires_at) is not None:
            self._head_timer = self._loop.call_at(at, self._head_expires)

    def _head_expires(self) -> None:
        self._expire()
        self.pump()

    def _head(self) -> StoredMessage:
        return self._returned[0] if self._returned else self._ready[0]

    # --- Consumers ---

    def attach(self, consumer: QueueConsumer) -> None:
        """Register a consumer."""
        self.consumers.append(consumer)
        self.touch()
        self.pump()

    def detach(self, consumer: QueueConsumer) -> None:
        """Remove a consumer if it is registered."""
        if consumer in self.consumers:
            self.consumers.remove(consumer)
            self.touch()
            self._owner.changed()

    def _next_consumer(self) -> QueueConsumer | None:
        for _ in range(len(self.consumers)):
            consumer = self.consumers[0]
            self.consumers.rotate(-1)
            if consumer.has_room():
                return consumer
        return None

    def _number(self, argument: str) -> int | None:
        value = self.declared.arguments.get(argument)
        return None if value is None else int(value)
