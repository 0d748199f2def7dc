"""The port on the model broker: one transport is one connection, and comes back by itself."""

import asyncio
from collections.abc import Callable

from bus.errors import BusError, DeadlineExceeded, InvalidArgument, Unavailable
from bus.messaging.envelope import Envelope
from bus.messaging.ports.transport import (
    Accepted,
    Delivery,
    PublishOutcome,
    Returned,
    ReturnListener,
)
from bus.messaging.supervision import run_forever
from bus.messaging.topology.addresses import Address
from bus.messaging.topology.model import Queue, Topology
from bus.transports.memory.broker import MemoryBroker
from bus.transports.memory.connection import MemoryConnection
from bus.transports.memory.consumer import MemoryConsumer
from bus.transports.wire_format import encode

__all__ = ["MemoryTransport"]

MAX_BODY_BYTES = 16 * 1024 * 1024
"""Bytes; as the rabbitmq transport has it, so that what is too large for RabbitMQ is too large here."""


class MemoryTransport:
    """A connection to a `MemoryBroker`; `clock` is the wall clock in seconds, the broker's where none is given."""

    has_management_api = False

    def __init__(self, broker: MemoryBroker, *, clock: Callable[[], float] | None = None) -> None:
        self._broker = broker
        self._clock = clock or broker.clock
        self._observer: ReturnListener | None = None
        self._connection: MemoryConnection | None = None
        self._connected = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._consumers: list[MemoryConsumer] = []

    async def start(self, observer: ReturnListener, *, timeout: float) -> None:
        """Connect; `Unavailable` where the broker stays down for `timeout` seconds."""
        self._observer = observer
        self._task = asyncio.create_task(
            run_forever(self._step, expected=(BusError,), on_error=_ignore),
            name="memory connection",
        )
        try:
            async with asyncio.timeout(timeout):
                await self.connection()
        except TimeoutError:
            raise Unavailable(f"the model broker is down for {timeout:.3g} s; start it") from None

    async def _step(self) -> None:
        connection = self._connection = self._broker.connect()
        self._connected.set()
        await asyncio.wait([connection.ended])
        self._connected.clear()
        if self._observer is not None:
            self._observer.on_connection_lost()

    async def connection(self) -> MemoryConnection:
        """The connection that is up. Waits for it; callers set the limit."""
        while self._connection is None or not self._connection.alive:
            self._connected.clear()
            await self._connected.wait()
        return self._connection

    @property
    def _up(self) -> bool:
        return self._connection is not None and self._connection.alive

    async def declare(self, topology: Topology) -> None:
        """Make it exist; `Unavailable` at once while there is no connection."""
        if self._connection is None or not self._up:
            raise Unavailable("nothing was declared: not connected to the model broker")
        self._broker.declare(topology, self._connection)

    async def depth(self, queue: str) -> int:
        """Messages that are ready in a queue; `Unavailable` at once while there is no connection."""
        if not self._up:
            raise Unavailable("nobody can tell: not connected to the model broker")
        return self._broker.depth(queue)

    async def send(
        self,
        envelope: Envelope,
        address: Address,
        *,
        timeout: float,
        via: Delivery | None = None,  # noqa: ARG002 - the port's
    ) -> PublishOutcome:
        """Send one message. `via` changes nothing here: the model broker has each message before the next call."""
        if len(envelope.body) > MAX_BODY_BYTES and envelope.queue is None:
            raise InvalidArgument(
                f"the message has {len(envelope.body)} bytes, and {MAX_BODY_BYTES} is the most"
            )
        ends = asyncio.get_running_loop().time() + timeout
        connection = await self._writable(ends)
        if address.confirmed:
            return await _confirmed(connection.send_confirmed(encode(envelope), address), ends)
        outcome = connection.send(encode(envelope), address)
        if isinstance(outcome, Returned) and self._observer is not None:
            asyncio.get_running_loop().call_soon(
                self._observer.on_return, envelope.id, outcome.reason
            )
        return Accepted()

    async def _writable(self, ends: float) -> MemoryConnection:
        """A connection that takes publishes; `Unavailable`, surely not sent, where there is none in time."""
        try:
            async with asyncio.timeout_at(ends):
                while not self._up or self._broker.blocked:
                    await self.connection()
                    await self._broker.unblocked()
        except TimeoutError:
            why = (
                "the broker blocks publishers"
                if self._broker.blocked
                else "no connection to the model broker"
            )
            raise Unavailable(f"not sent: {why}") from None
        return await self.connection()

    def supports_consumer_timeout(self, queue: Queue) -> bool:  # noqa: ARG002 - of no queue
        """The model takes nothing back; what older brokers would is refused here as well, so that a test shows it."""
        return False

    async def consume(
        self,
        queue: Queue,
        topology: Topology,
        *,
        prefetch: int,
        on_delivery: Callable[[Delivery], None],
        acks: bool = True,
        consumer_timeout: float | None = None,  # noqa: ARG002 - it has no end here
    ) -> MemoryConsumer:
        """Consume, supervised."""
        consumer = MemoryConsumer(
            self.connection,
            self._broker,
            queue,
            topology,
            prefetch=prefetch,
            on_delivery=on_delivery,
            acks=acks,
            clock=self._clock,
        )
        self._consumers = [each for each in self._consumers if not each.closed] + [consumer]
        consumer.start()
        return consumer

    async def close(self) -> None:
        """Close everything; what is unacked is delivered again to others."""
        for consumer in self._consumers:
            await consumer.close()
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
        self.drop("the transport was closed")

    def drop(self, reason: str = "the connection was dropped") -> None:
        """Lose the connection, as a network does; the transport comes back by itself unless it was closed."""
        if self._connection is not None:
            self._connection.close(reason)


async def _confirmed(confirm: "asyncio.Future[PublishOutcome]", ends: float) -> PublishOutcome:
    try:
        async with asyncio.timeout_at(ends):
            return await confirm
    except TimeoutError:
        raise DeadlineExceeded("no confirm within the deadline", maybe_executed=True) from None


def _ignore(_error: BaseException) -> None:
    """A broker that is down is known to be: whoever waits for it hears of it."""
