"""A queue of the model broker: order, limits, time to live, consumers; classic and quorum as RabbitMQ 3.10 has them."""

import asyncio
from bisect import insort
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol

from bus.messaging.topology.model import Queue
from bus.transports.memory.stored_message import Reason, StoredMessage
from bus.transports.wire_format import AmqpMessage

__all__ = ["MemoryQueue", "QueueConsumer"]

SOFT_LIMIT = 0.8
"""A quorum queue that refused takes messages again below this share of its limit (`LOW_LIMIT` in rabbit_fifo)."""


class QueueConsumer(Protocol):
    """Who takes messages from a queue."""

    @property
    def acks(self) -> bool:
        """Whether it acknowledges; else the queue forgets a message as it hands it over."""
        ...

    def has_room(self) -> bool:
        """Whether its prefetch allows one more."""
        ...

    def take(self, message: StoredMessage) -> None:
        """One message; must not call back into the queue."""
        ...

    def cancelled(self) -> None:
        """The broker ended this consumer: its queue is gone."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueOwner:
    """What a queue asks of its broker."""

    dead_letter: Callable[["MemoryQueue", StoredMessage, Reason], None]
    expired: Callable[["MemoryQueue"], None]
    """Nobody used it for `x-expires`."""


class MemoryQueue:
    """One queue; every method works at once, and the consumers get theirs in the loop's next turn."""

    def __init__(self, declared: Queue, owner: QueueOwner) -> None:
        self.declared = declared
        self.limit = self._number("x-max-length")
        self.overflow = str(declared.arguments.get("x-overflow", "drop-head"))
        self.consumers: deque[QueueConsumer] = deque()
        self.discarded = 0
        """Dead letters that no target has taken yet; they count towards the limit."""
        self._owner = owner
        self._loop = asyncio.get_running_loop()
        self._returned: deque[StoredMessage] = deque()
        self._ready: deque[StoredMessage] = deque()
        self._positions = 0
        self._refusing = False
        self._head_timer: asyncio.TimerHandle | None = None
        self._lease: asyncio.TimerHandle | None = None
        self._gone = False
        self.touch()

    @property
    def name(self) -> str:
        """The queue's name."""
        return self.declared.name

    @property
    def quorum(self) -> bool:
        """Whether it is a quorum queue; else a classic one."""
        return self.declared.arguments.get("x-queue-type") == "quorum"

    @property
    def depth(self) -> int:
        """Messages that are ready."""
        return len(self._returned) + len(self._ready)

    def peek(self) -> list[StoredMessage]:
        """What is ready, in order."""
        return [*self._returned, *self._ready]

    def outgoing(self, message: StoredMessage) -> AmqpMessage:
        """A message as it is delivered: a quorum queue counts, for whoever reads it."""
        if not self.quorum or not message.returns:
            return message.wire
        return replace(
            message.wire, headers={**message.wire.headers, "x-delivery-count": message.returns}
        )

    # --- messages in and out ---------------------------------------------------------------------------------------

    def put(self, message: StoredMessage) -> bool:
        """Take a message; False where the queue is full and refuses."""
        if self._refuses():
            return False
        self._append(message)
        self.pump()
        self._drop_heads()
        return True

    def requeue(self, message: StoredMessage) -> None:
        """A message that was handed over comes back; it went with its queue where that is deleted."""
        if self._gone:
            return
        message.returns += 1
        limit = self._number("x-delivery-limit")
        if self.quorum and limit is not None and message.returns > limit:
            self._owner.dead_letter(self, message, "delivery_limit")
        else:
            self._put_back(message, limited=limit is not None)
        self.pump()

    def pump(self) -> None:
        """Hand over what can be, to the consumers in turn."""
        self._expire(late_only=True)
        while self.depth and (consumer := self._next_consumer()):
            consumer.take(self._pop())
            self._expire(late_only=True)
        self._settle_limit()
        self._watch_head()

    def forget_transient(self) -> None:
        """A restart: a classic queue keeps persistent messages only."""
        if not self.quorum:
            self._returned, self._ready = (
                deque(each for each in messages if each.wire.delivery_mode == 2)  # noqa: PLR2004 - AMQP's "persistent"
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
        """Classic: where it was. Quorum on 3.10: with a delivery limit ahead of all new ones, without to the back."""
        if not self.quorum:
            insort(self._returned, message, key=lambda each: each.position)
        elif limited:
            self._returned.append(message)
        else:
            self._ready.append(message)

    # --- limits ----------------------------------------------------------------------------------------------------

    def _refuses(self) -> bool:
        """Classic counts before it takes a message; quorum notices afterwards, so that it holds one more than its limit."""
        if self.limit is None or self.overflow != "reject-publish":
            return False
        return self._refusing if self.quorum else self.depth + 1 > self.limit

    def _settle_limit(self) -> None:
        count = self.depth + self.discarded
        if self.limit is None or count <= int(self.limit * SOFT_LIMIT):
            self._refusing = False
        elif count > self.limit:
            self._refusing = True

    def _drop_heads(self) -> None:
        while self.limit is not None and self.overflow == "drop-head" and self.depth > self.limit:
            self._owner.dead_letter(self, self._pop(), "maxlen")

    # --- time ------------------------------------------------------------------------------------------------------

    def touch(self) -> None:
        """It is used: the lease of `x-expires` begins anew, and does not run while there are consumers."""
        lease = self._number("x-expires")
        if self._lease:
            self._lease.cancel()
        if lease is not None and not self.consumers:
            self._lease = self._loop.call_later(lease / 1000, self._owner.expired, self)

    def stop(self) -> None:
        """It is deleted, with all that is in it."""
        self._gone = True
        self._returned.clear()
        self._ready.clear()
        for timer in (self._head_timer, self._lease):
            if timer:
                timer.cancel()

    def _expiry(self, message: StoredMessage) -> float | None:
        own = message.wire.expiration
        times = [int(own)] if own is not None and own.isdigit() else []
        if (common := self._number("x-message-ttl")) is not None:
            times.append(common)
        return self._loop.time() + min(times) / 1000 if times else None

    def _expire(self, *, late_only: bool = False) -> None:
        """Dead-letter heads whose time is over; only heads, as in RabbitMQ. A message is still handed over in the instant it expires."""
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

    # --- consumers -------------------------------------------------------------------------------------------------

    def attach(self, consumer: QueueConsumer) -> None:
        """Register a consumer."""
        self.consumers.append(consumer)
        self.touch()
        self.pump()

    def detach(self, consumer: QueueConsumer) -> None:
        """Remove a consumer, if it is there."""
        if consumer in self.consumers:
            self.consumers.remove(consumer)
            self.touch()

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
