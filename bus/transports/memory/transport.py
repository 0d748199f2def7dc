"""The transport for the model broker. It has one connection and reconnects by itself."""

import asyncio
from collections.abc import Callable

from bus.errors import BusError, DeadlineExceeded, Unavailable
from bus.messaging.body_limit import DEFAULT_MAX_BODY_BYTES, check_body
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
from bus.messaging.topology.consumer_spec import ConsumerSpec
from bus.messaging.topology.model import Queue, Topology
from bus.transports.memory.broker import MemoryBroker
from bus.transports.memory.connection import MemoryConnection
from bus.transports.memory.consumer import MemoryConsumer
from bus.transports.memory.control_channel import MemoryControlChannel
from bus.transports.memory.limits import check_limits
from bus.transports.wire_format import encode

__all__ = ["MemoryTransport"]

CONTROL_SEND_SECONDS = 1.0
"""Seconds in which a message on the control channel must be sent."""


class MemoryTransport:
    """A transport with one connection to a `MemoryBroker`.

    Args:
        broker: The broker to connect to.
        clock: Returns the wall clock's time in seconds since the epoch. The default is the
            broker's clock.
        max_body_bytes: Maximum bytes of a body that the transport sends. The RabbitMQ transport
            has the same limit. So a test detects a body that is too large.
    """

    has_management_api = False
    is_refused = False

    def __init__(
        self,
        broker: MemoryBroker,
        *,
        clock: Callable[[], float] | None = None,
        max_body_bytes: int = DEFAULT_MAX_BODY_BYTES,
    ) -> None:
        self._broker = broker
        self._max_body_bytes = max_body_bytes
        self._clock = clock or broker.clock
        self._observer: ReturnListener | None = None
        self._connection: MemoryConnection | None = None
        self._connected = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._consumers: list[MemoryConsumer] = []

    async def start(self, observer: ReturnListener, *, timeout: float) -> None:
        """Connect.

        Args:
            observer: Receives returned messages and lost connections.
            timeout: Seconds to wait for the broker.

        Raises:
            Unavailable: The broker accepted no connection for `timeout` seconds.
            FailedPrecondition: The broker belongs to another event loop.
        """
        # The former objects are closed, or belong to another event loop.
        self._connection, self._connected = None, asyncio.Event()
        self._consumers, self._task = [], None
        self._broker.check_loop()
        self._observer = observer
        self._task = asyncio.create_task(
            run_forever(self._step, expected=(BusError,), on_error=_ignore),
            name="memory connection",
        )
        try:
            async with asyncio.timeout(timeout):
                await self.connection()
        except TimeoutError:
            raise Unavailable(
                f"the model broker accepted no connection for {timeout:.3g} s. "
                "Call its `start` method."
            ) from None

    async def _step(self) -> None:
        connection = self._connection = self._broker.connect()
        self._connected.set()
        await asyncio.wait([connection.ended])
        self._connected.clear()
        if self._observer is not None:
            self._observer.on_connection_lost()

    async def connection(self) -> MemoryConnection:
        """Return the open connection. If none is open, wait for one without a time limit."""
        while self._connection is None or not self._connection.alive:
            self._connected.clear()
            await self._connected.wait()
        return self._connection

    @property
    def _is_connected(self) -> bool:
        return self._connection is not None and self._connection.alive

    async def declare(self, topology: Topology) -> None:
        """Declare the topology. If the connection is not open, raise `Unavailable`; do not wait."""
        if self._connection is None or not self._is_connected:
            raise Unavailable("the topology was not declared: no connection to the model broker")
        self._broker.declare(topology, self._connection)

    async def depth(self, queue: str) -> int:
        """Return the number of ready messages in a queue.

        Raises:
            NotFound: The queue does not exist.
            Unavailable: The connection is not open.
        """
        if not self._is_connected:
            raise Unavailable(
                f"the depth of queue '{queue}' is not known: no connection to the model broker"
            )
        return self._broker.depth(queue)

    async def send(
        self,
        envelope: Envelope,
        address: Address,
        *,
        timeout: float,
        via: Delivery | None = None,  # noqa: ARG002 - required by `Transport`
    ) -> PublishOutcome:
        """Send one message.

        `via` has no effect, because the model broker routes each message within this call.
        """
        check_body(envelope, self._max_body_bytes)
        ends = asyncio.get_running_loop().time() + timeout
        connection = await self._wait_writable(ends)
        wire = encode(envelope)
        check_limits(wire, address)
        if address.confirmed:
            return await _wait_confirm(connection.send_confirmed(wire, address), ends)
        outcome = connection.send(wire, address)
        if isinstance(outcome, Returned) and self._observer is not None:
            asyncio.get_running_loop().call_soon(
                self._observer.on_return, envelope.id, outcome.reason
            )
        return Accepted()

    async def _wait_writable(self, ends: float) -> MemoryConnection:
        """Wait until the connection accepts publishes, and return the connection.

        Raise `Unavailable` if the connection does not accept publishes before `ends`. The error
        means that the message was not sent.
        """
        try:
            async with asyncio.timeout_at(ends):
                while not self._is_connected or self._broker.blocked:
                    await self.connection()
                    await self._broker.unblocked()
        except TimeoutError:
            why = (
                "the model broker blocks publishers"
                if self._broker.blocked
                else "no connection to the model broker"
            )
            raise Unavailable(f"message not sent: {why}") from None
        return await self.connection()

    def supports_consumer_timeout(self, queue: Queue) -> bool:  # noqa: ARG002 - from `Transport`
        """Return False, because RabbitMQ before 4.3 ignores the timeout that a consumer requests.

        Because the result is False, the bus refuses a handler whose timeout exceeds the setting
        `consumer_timeout`. So a test detects a timeout that is too long, although the model broker
        has no consumer timeout.

        Args:
            queue: The queue of the consumer.
        """
        return False

    async def consume(
        self, spec: ConsumerSpec, on_delivery: Callable[[Delivery], None]
    ) -> MemoryConsumer:
        """Start a supervised consumer. The option `consumer_timeout` of `spec` has no effect."""
        consumer = MemoryConsumer(
            self.connection,
            self._broker,
            spec,
            on_delivery=on_delivery,
            clock=self._clock,
        )
        self._consumers = [started for started in self._consumers if not started.closed]
        self._consumers.append(consumer)
        consumer.start()
        return consumer

    async def open_control(
        self,
        spec: ConsumerSpec,
        on_delivery: Callable[[Delivery], None],
        on_refused: Callable[[BusError], None],  # noqa: ARG002 - the model broker refuses nothing
    ) -> MemoryControlChannel:
        """Open a control channel; see `ControlTransport.open_control`."""
        return MemoryControlChannel(
            await self.consume(spec, on_delivery),
            lambda envelope, address: self.send(envelope, address, timeout=CONTROL_SEND_SECONDS),
            lambda: self._is_connected and not self._broker.blocked,
        )

    async def close(self) -> None:
        """Close all consumers and the connection. Unacked messages are requeued."""
        for consumer in self._consumers:
            await consumer.close()
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
        self.drop("the transport was closed")

    def drop(self, reason: str = "the connection was dropped") -> None:
        """Drop the connection. A network failure has the same effect.

        The transport connects again by itself, unless it was closed.

        Args:
            reason: Text that the error messages contain.
        """
        if self._connection is not None:
            self._connection.close(reason)


async def _wait_confirm(confirm: "asyncio.Future[PublishOutcome]", ends: float) -> PublishOutcome:
    try:
        async with asyncio.timeout_at(ends):
            return await confirm
    except TimeoutError:
        raise DeadlineExceeded(
            "the broker did not confirm the message in time, and may have accepted it. Inspect the "
            "queue, or raise the timeout.",
            maybe_executed=True,
        ) from None


def _ignore(_error: BaseException) -> None:
    """Ignore the error of a failed attempt to connect.

    `start` and `send` raise `Unavailable` if the connection is not open in time.
    """
