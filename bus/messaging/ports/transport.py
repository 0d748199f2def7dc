"""The transport port: the interface of a transport, and its guarantees.

The tests in `tests/conformance/` check these guarantees for every transport.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from bus.errors import BusError
from bus.messaging.envelope import Envelope
from bus.messaging.topology.addresses import Address
from bus.messaging.topology.consumer_spec import ConsumerSpec
from bus.messaging.topology.model import Queue, Topology

__all__ = [
    "Accepted",
    "ConsumerHandle",
    "Delivery",
    "Nacked",
    "PublishOutcome",
    "ReturnListener",
    "Returned",
    "Transport",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Accepted:
    """Outcome of a send that succeeded.

    The broker has taken responsibility for a confirmed message. An unconfirmed message was written
    to the connection.
    """


@dataclass(frozen=True, slots=True, kw_only=True)
class Returned:
    """Outcome of a mandatory send whose message no queue accepted."""

    reason: str
    """Reason that the broker reports."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Nacked:
    """Outcome of a send whose message the broker refused, because a queue is full."""

    reason: str
    """Reason that the broker reports."""


PublishOutcome = Accepted | Returned | Nacked


class Delivery(Protocol):
    """Delivery of one message to one consumer."""

    @property
    def envelope(self) -> Envelope:
        """Delivered message. `received` and `queue` are set.

        If the message is malformed, `fault` is set too. If the body exceeds the limit of the
        consumer, `body` is empty, and `fault` and `unread_bytes` are set.
        """
        ...

    @property
    def redelivered(self) -> bool:
        """True if the broker has delivered the message before, to this or another consumer.

        It is unknown whether the earlier consumer handled the message.
        """
        ...

    @property
    def is_open(self) -> bool:
        """True until the channel of the delivery has ended.

        After that, the delivery cannot be acked, and the broker delivers the message again.
        """
        ...

    @property
    def broker_headers(self) -> Mapping[str, Any]:
        """Headers of the broker, such as `x-death`. Their names begin with `x-`.

        The envelope does not contain them, because a copy of the message must not contain them. A
        value can have any type, because any client can write these headers.
        """
        ...

    async def ack(self) -> bool:
        """Acknowledge the delivery. A second call has no effect.

        Returns:
            True if the ack was sent. False if the channel was closed, or if the broker took the
            delivery back. After False, the broker may deliver the message again.
        """
        ...

    async def requeue(self, *, counts: bool = False) -> bool:
        """Requeue the message for another consumer.

        Args:
            counts: True if the requeue must count toward the queue's delivery limit. After too many
                such requeues, the broker dead-letters the message. Before RabbitMQ 4.3, every
                requeue counts.

        Returns:
            False if the channel was closed. In this case the broker requeues the message by itself.
        """
        ...

    async def reject(self) -> bool:
        """Reject the message. The broker dead-letters it, or drops it if its queue has no DLX.

        The broker moves the message itself, so this process needs no copy of the body.

        Returns:
            False if the channel was closed. In this case the broker requeues the message by itself.
        """
        ...


class ReturnListener(Protocol):
    """Listener for failures that are detected after `Transport.send` has returned."""

    def on_return(self, message_id: str, reason: str) -> None:
        """Handle the return of an unconfirmed mandatory message that no queue accepts.

        Args:
            message_id: Id of the message.
            reason: Reason that the broker reports.
        """
        ...

    def on_publish_failed(self, message_id: str, error: BusError) -> None:
        """Handle the failure of an unconfirmed message after it was written.

        Args:
            message_id: Id of the message.
            error: Error that describes why the broker refused or dropped the message. If
                `error.maybe_executed` is true, the message may have arrived.
        """
        ...

    def on_connection_lost(self) -> None:
        """Handle the loss of the connection that carries requests and replies.

        Replies that are in flight will not arrive.
        """
        ...


class ConsumerHandle(Protocol):
    """Handle of a supervised consumer, which runs until it is cancelled or closed."""

    @property
    def name(self) -> str:
        """Name of the queue."""
        ...

    @property
    def ready(self) -> bool:
        """True if the consumer is registered: the broker has sent `basic.consume-ok`."""
        ...

    @property
    def last_error(self) -> str | None:
        """Reason why the consumer is not ready, in one line without secrets.

        None if no error occurred since the consumer was last ready.
        """
        ...

    async def wait_ready(self) -> None:
        """Wait without a time limit until the consumer is ready."""
        ...

    async def cancel(self) -> None:
        """Stop deliveries. Messages that were delivered can be acked until `close`."""
        ...

    async def close(self) -> None:
        """Stop the consumer and release its channel, within a few seconds.

        The broker requeues unacked messages. A second call has no effect.
        """
        ...


class Transport(Protocol):
    """Interface that moves envelopes between a service and its broker.

    The transport recovers by itself. After a failure it connects, declares and consumes again, with
    jittered back-off and without a limit of attempts. A call raises an error only if the operation
    that it waits for fails.
    """

    @property
    def has_management_api(self) -> bool:
        """True if the broker has a management API, which reports the settings of its queues."""
        ...

    @property
    def is_refused(self) -> bool:
        """True while a connection is down because the transport refused a host's cluster.

        A transport with one connection can always return False, because its consumers are not ready
        then.
        """
        ...

    async def start(self, observer: ReturnListener, *, timeout: float) -> None:
        """Connect to the broker.

        After `close`, the transport can be started again, also in another event loop.

        Args:
            observer: Listener for returned messages and lost connections.
            timeout: Seconds to wait for the connection, for each host of the broker.

        Raises:
            Unavailable: No broker accepted the connection in time.
            Unauthenticated: Every host refused the credentials. The error is raised without a wait
                for the timeout.
        """
        ...

    async def declare(self, topology: Topology) -> None:
        """Declare exchanges, queues and bindings. A second call has no effect.

        If the setting `topology` is `verify`, the method only checks that the objects exist.

        Args:
            topology: Objects to declare.

        Raises:
            TopologyMismatch: An object exists with different arguments. The error names the object.
            ConfigurationError: An object is missing, and this service must not declare it. The
                error names the object.
            Unavailable: The transport is not connected.
        """
        ...

    async def depth(self, queue: str) -> int:
        """Return the number of messages that are ready in a queue.

        Args:
            queue: Name of the queue.

        Raises:
            NotFound: The queue does not exist.
            Unavailable: The transport is not connected, or the broker did not count in time.
        """
        ...

    async def send(
        self, envelope: Envelope, address: Address, *, timeout: float, via: Delivery | None = None
    ) -> PublishOutcome:
        """Send one message at least once, and return the outcome.

        A confirmed send (`address.confirmed`) returns after the broker's confirm. If two
        messages with the same id are in flight, each send returns the outcome of its own message.
        An unconfirmed send returns when the message is written. If the broker returns the message
        later, the listener is notified.

        Args:
            envelope: Message to send.
            address: Exchange, routing key, and the options `mandatory` and `confirmed`.
            timeout: Seconds to wait for the outcome.
            via: Delivery whose channel sends the message, if the channel is open. The broker then
                receives the message before the ack of this delivery.

        Returns:
            The outcome: the broker accepted, returned or refused the message.

        Raises:
            Unavailable: The message was certainly not sent. The transport is not connected, or the
                broker has blocked the connection.
            ConnectionLost: The connection was lost before the confirm. `maybe_executed` is true.
            PermissionDenied: The broker does not allow this service's user to send to the address.
                If `maybe_executed` is true, the broker may have refused another message to the same
                address instead.
            DeadlineExceeded: The outcome was not known in time. If `maybe_executed` is true, the
                message was written.
            InvalidArgument: The body, a header or the address is too large, or is invalid in AMQP.
        """
        ...

    def supports_consumer_timeout(self, queue: Queue) -> bool:
        """Return True if the broker applies the timeout that a consumer of this queue requests.

        Args:
            queue: Queue to consume. The transport must be connected.
        """
        ...

    async def consume(
        self, spec: ConsumerSpec, on_delivery: Callable[[Delivery], None]
    ) -> ConsumerHandle:
        """Start a supervised consumer, which receives each message at least once.

        The method does not wait for the broker. `ConsumerHandle.wait_ready` waits until deliveries
        can arrive.

        Args:
            spec: Queue to consume and options of the consumer. A body that is larger than
                `spec.max_body_bytes` is not kept in memory. The transport declares
                `spec.topology` before the first start of the consumer and before each restart.
                `spec.consumer_timeout` applies if the broker supports it.
            on_delivery: Function that is called with each delivery. It must not block or raise.

        Returns:
            The handle of the consumer.
        """
        ...

    async def close(self) -> None:
        """Close all connections within a few seconds.

        The broker delivers unacked messages to other consumers.
        """
        ...
