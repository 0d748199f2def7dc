"""A supervised consumer of the model broker, and what it delivers."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from functools import cached_property
from typing import Any

from bus.errors import BusError
from bus.messaging.envelope import Envelope
from bus.messaging.ports.transport import Delivery
from bus.messaging.supervision import run_forever
from bus.messaging.topology.model import Queue, Topology
from bus.transports.memory.broker import MemoryBroker
from bus.transports.memory.connection import MemoryChannel, MemoryConnection
from bus.transports.memory.stored_message import StoredMessage
from bus.transports.wire_format import ROLES, broker_headers, decode

__all__ = ["MemoryConsumer", "MemoryDelivery"]


class MemoryDelivery:
    """A message as it was delivered on one channel."""

    def __init__(
        self, channel: MemoryChannel, message: StoredMessage, queue: Queue, received: int
    ) -> None:
        self._channel, self._message, self._queue = channel, message, queue
        self._received = received
        self._settled = False
        self.redelivered = message.returns > 0
        """Whether the broker delivered it before. Kept, since the message may be on its way to another consumer already."""
        self._wire = channel.outgoing(message)

    @cached_property
    def envelope(self) -> Envelope:
        """The message; `Delivery.envelope` says more."""
        return decode(
            self._wire,
            role=ROLES[self._queue.role],
            queue=self._queue.name,
            received=self._received,
        )

    @property
    def broker_headers(self) -> Mapping[str, Any]:
        """The broker's own notes."""
        return broker_headers(self._wire.headers)

    async def ack(self) -> bool:
        """Done."""
        return self._settle(self._channel.ack)

    async def requeue(self) -> bool:
        """Back to the broker, for another consumer."""
        return self._settle(self._channel.requeue)

    def _settle(self, how: Callable[[StoredMessage], bool]) -> bool:
        """Once: a second ack would cost the channel."""
        if not self._channel.alive:
            return False
        if not self._settled:
            self._settled = True
            how(self._message)
        return True


class MemoryConsumer:
    """A queue's consumer; `Consumption` is its port."""

    def __init__(  # noqa: PLR0913 - what `Transport.consume` takes, and what it comes on
        self,
        connection: Callable[[], Awaitable[MemoryConnection]],
        broker: MemoryBroker,
        queue: Queue,
        topology: Topology,
        *,
        prefetch: int,
        on_delivery: Callable[[Delivery], None],
        acks: bool,
        clock: Callable[[], float],
    ) -> None:
        self._connection, self._broker = connection, broker
        self._queue, self._topology = queue, topology
        self._prefetch, self._on_delivery, self._acks, self._clock = (
            prefetch,
            on_delivery,
            acks,
            clock,
        )
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
        """Whether the broker has it registered now."""
        return self._channel is not None and self._channel.consuming

    async def wait_ready(self) -> None:
        """Returns when it is ready."""
        while not self.ready:
            self._registered.clear()
            await self._registered.wait()

    def start(self) -> None:
        """Consume, and again whenever that ends."""
        self._task = asyncio.create_task(
            run_forever(self._step, expected=(BusError,), on_error=self._report),
            name=f"memory consumer {self.name}",
        )

    async def _step(self) -> None:
        connection = await self._connection()
        self._broker.declare(self._topology, connection)
        channel = self._channel = connection.channel()
        channel.consume(self.name, self._deliver, prefetch=self._prefetch, acks=self._acks)
        self.last_error = None
        self._registered.set()
        await asyncio.wait([channel.ended])
        self.last_error = channel.ended.result()
        channel.close(self.last_error)

    def _report(self, error: BaseException) -> None:
        self.last_error = str(error)

    def _deliver(self, channel: MemoryChannel, message: StoredMessage) -> None:
        delivery = MemoryDelivery(channel, message, self._queue, int(self._clock() * 1000))
        try:
            self._on_delivery(delivery)
        except Exception as error:  # noqa: BLE001 - the port forbids it; one receiver's fault must not end the broker
            context = {"message": f"on_delivery of {self.name} raised", "exception": error}
            asyncio.get_running_loop().call_exception_handler(context)

    async def cancel(self) -> None:
        """No further deliveries; the channel stays for acks."""
        await self._stop()
        if self._channel is not None:
            self._channel.detach()

    @property
    def closed(self) -> bool:
        """Whether it will never consume again, and its channel is gone."""
        return (
            self._task is not None
            and self._task.done()
            and (self._channel is None or not self._channel.alive)
        )

    async def close(self) -> None:
        """Consume no more, and close the channel: what is unacked goes back."""
        await self._stop()
        if self._channel is not None:
            self._channel.close("closed")

    async def _stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
