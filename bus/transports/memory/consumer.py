"""The supervised consumer of the memory transport, and the consumer's deliveries."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from functools import cached_property
from typing import Any

from bus.errors import BusError
from bus.messaging.body_limit import without_body
from bus.messaging.envelope import Envelope
from bus.messaging.ports.transport import Delivery
from bus.messaging.supervision import run_forever
from bus.messaging.topology.consumer_spec import ConsumerSpec
from bus.transports.memory.broker import MemoryBroker
from bus.transports.memory.connection import MemoryChannel, MemoryConnection
from bus.transports.memory.stored_message import StoredMessage
from bus.transports.wire_format import ROLES, broker_headers, decode

__all__ = ["MemoryConsumer", "MemoryDelivery"]


class MemoryDelivery:
    """A message that was delivered on one channel."""

    def __init__(
        self, channel: MemoryChannel, message: StoredMessage, spec: ConsumerSpec, received: int
    ) -> None:
        self._channel, self._message = channel, message
        self._queue, self._max_body_bytes = spec.queue, spec.max_body_bytes
        self._received = received
        self._settled = False
        self.redelivered = message.returns > 0
        """True if the broker delivered the message before.

        The value is stored here, because `message.returns` changes when the message is requeued.
        """
        self._wire = channel.outgoing(message)

    @cached_property
    def envelope(self) -> Envelope:
        """The decoded message; see `Delivery.envelope`."""
        envelope = decode(
            self._wire,
            role=ROLES[self._queue.role],
            queue=self._queue.name,
            received=self._received,
        )
        size, limit = len(envelope.body), self._max_body_bytes
        return envelope if size <= limit else without_body(envelope, size, limit)

    @property
    def is_open(self) -> bool:
        """True until the channel of the delivery has ended."""
        return self._channel.alive

    @property
    def broker_headers(self) -> Mapping[str, Any]:
        """The headers of the broker, such as `x-death`."""
        return broker_headers(self._wire.headers)

    async def ack(self) -> bool:
        """Ack the message. Return False if the channel is closed."""
        return self._settle(self._channel.ack)

    async def requeue(self, *, counts: bool = False) -> bool:  # noqa: ARG002 - every requeue counts
        """Requeue the message. Return False if the channel is closed."""
        return self._settle(self._channel.requeue)

    async def reject(self) -> bool:
        """Dead-letter the message. Return False if the channel is closed."""
        return self._settle(self._channel.reject)

    def _settle(self, operation: Callable[[StoredMessage], bool]) -> bool:
        """Settle the message once. On RabbitMQ, a second ack would close the channel."""
        if not self._channel.alive:
            return False
        if not self._settled:
            self._settled = True
            operation(self._message)
        return True


class MemoryConsumer:
    """The consumer of one queue. It implements `ConsumerHandle`."""

    def __init__(
        self,
        connection: Callable[[], Awaitable[MemoryConnection]],
        broker: MemoryBroker,
        spec: ConsumerSpec,
        *,
        on_delivery: Callable[[Delivery], None],
        clock: Callable[[], float],
    ) -> None:
        self._connection, self._broker = connection, broker
        self._spec, self._queue = spec, spec.queue
        self._on_delivery, self._clock = on_delivery, clock
        self._channel: MemoryChannel | None = None
        self._registered = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self.last_error: str | None = None

    @property
    def name(self) -> str:
        """The queue's name."""
        return self._queue.name

    @property
    def ready(self) -> bool:
        """True if the consumer is registered at the broker now."""
        return self._channel is not None and self._channel.consuming

    async def wait_ready(self) -> None:
        """Wait until the consumer is ready."""
        while not self.ready:
            self._registered.clear()
            await self._registered.wait()

    def start(self) -> None:
        """Start to consume. Each time the consumer ends, it is registered again."""
        self._broker.supervise(self)
        self._task = asyncio.create_task(
            run_forever(self._step, expected=(BusError,), on_error=self._report),
            name=f"memory consumer {self.name}",
        )

    async def _step(self) -> None:
        connection = await self._connection()
        self._broker.declare(self._spec.topology, connection)
        channel = self._channel = connection.channel()
        channel.consume(
            self.name, self._deliver, prefetch=self._spec.prefetch, acks=self._spec.acks
        )
        self.last_error = None
        self._registered.set()
        await asyncio.wait([channel.ended])
        self.last_error = channel.ended.result()
        channel.close(self.last_error)

    def _report(self, error: BaseException) -> None:
        self.last_error = str(error)

    def _deliver(self, channel: MemoryChannel, message: StoredMessage) -> None:
        delivery = MemoryDelivery(channel, message, self._spec, int(self._clock() * 1000))
        try:
            self._on_delivery(delivery)
        except Exception as error:  # noqa: BLE001 - a receiver's bug must not stop the broker
            context = {
                "message": f"on_delivery of queue '{self.name}' raised an error",
                "exception": error,
            }
            asyncio.get_running_loop().call_exception_handler(context)

    def limit_body(self, max_bytes: int) -> None:
        """Drop larger bodies of the next deliveries."""
        self._spec = replace(self._spec, max_body_bytes=max_bytes)

    async def cancel(self) -> None:
        """Stop deliveries. The channel stays open for acks."""
        await self._stop()
        if self._channel is not None:
            self._channel.detach()

    @property
    def is_supervised(self) -> bool:
        """True until the consumer is cancelled or closed."""
        return self._task is None or not self._task.done()

    @property
    def closed(self) -> bool:
        """True if the consumer has stopped permanently, and the consumer's channel is closed."""
        return (
            self._task is not None
            and self._task.done()
            and (self._channel is None or not self._channel.alive)
        )

    async def close(self) -> None:
        """Stop the consumer. Close the consumer's channel, and requeue the unacked messages."""
        await self._stop()
        if self._channel is not None:
            self._channel.close("closed")

    async def _stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
