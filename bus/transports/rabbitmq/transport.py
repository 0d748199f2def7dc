"""The transport for RabbitMQ.

It uses three connections, because RabbitMQ reads nothing from a publishing connection during an
alarm. On a shared connection, acks of jobs and events would wait behind blocked publishes.
"""

import asyncio
import time
from collections.abc import Callable
from typing import TypeVar

from aiormq.channel import Channel

from bus.errors import BusError
from bus.messaging.envelope import Envelope
from bus.messaging.ports.transport import (
    ConsumerHandle,
    Delivery,
    PublishOutcome,
    Returned,
    ReturnListener,
)
from bus.messaging.topology.addresses import Address
from bus.messaging.topology.consumer_spec import ConsumerSpec
from bus.messaging.topology.model import Queue, Topology
from bus.security.secret_files import PasswordFile
from bus.settings import Settings
from bus.transports.rabbitmq.aiormq_channels import (
    AiormqConsumerChannel,
    AiormqDelivery,
    AiormqPublisherChannel,
)
from bus.transports.rabbitmq.body_limit import SendLimit
from bus.transports.rabbitmq.connection import SupervisedConnection
from bus.transports.rabbitmq.consumer import ConsumerChannelPort, RabbitMQConsumer
from bus.transports.rabbitmq.control_channel import ControlConsumer
from bus.transports.rabbitmq.credential_refresh import CredentialRefresher
from bus.transports.rabbitmq.fastlane.confirm_channel import ACCEPTED, ConfirmChannel
from bus.transports.rabbitmq.fastlane.consumer_channel import ConsumerChannel, FastLaneDelivery
from bus.transports.rabbitmq.fastlane.unconfirmed_channel import UnconfirmedChannel
from bus.transports.rabbitmq.publisher import Publisher, PublisherChannelPort
from bus.transports.rabbitmq.queue_depth import ready_in

__all__ = ["RabbitMQTransport"]

Clock = Callable[[], float]
C = TypeVar("C", bound=RabbitMQConsumer)


class RabbitMQTransport:
    """The `Transport` for RabbitMQ 3.10 and later."""

    has_management_api = True

    def __init__(self, settings: Settings, *, name: str, clock: Clock = time.time) -> None:
        """Create a transport that is not connected.

        Args:
            settings: The settings of the bus.
            name: The service's name. The RabbitMQ UI shows it in the names of the connections.
            clock: Returns the wall clock's time in seconds since the epoch.
        """
        self._settings = settings
        self._name = name
        self._clock = clock
        self._observer: ReturnListener | None = None
        self._send_limit = SendLimit(settings.max_message)
        self._password = PasswordFile.of(settings.password_file)
        self._create_connections()

    def _create_connections(self) -> None:
        """Create the connections and publishers, which are not open yet."""
        name, settings = self._name, self._settings
        self._rpc = self._link(f"{name} requests and replies", on_lost=self._lost)
        self._publishing = self._link(f"{name} publishing")
        self._consuming = self._link(f"{name} consuming")
        self._renewal = CredentialRefresher.by(settings, self._password, self._links, name=name)
        self._rpc_publisher = Publisher(
            self._rpc, confirms=not settings.fastlane, channel_factory=self._rpc_channel
        )
        self._publisher = Publisher(
            self._publishing, confirms=True, channel_factory=self._confirm_channel
        )
        self._consumers: list[RabbitMQConsumer] = []

    def _link(
        self, name: str, *, on_lost: Callable[[], None] | None = None
    ) -> SupervisedConnection:
        return SupervisedConnection(
            self._settings.address,
            name=name,
            heartbeat=self._settings.heartbeat,
            attempt_timeout=self._settings.connect_timeout,
            fastlane=self._settings.fastlane,
            verify=self._settings.topology == "verify",
            password=self._password,
            on_lost=on_lost,
        )

    # --- Channels ---

    def _rpc_channel(self, channel: Channel) -> PublisherChannelPort:
        """Return the channel for messages that need no confirm.

        Without the fast lane, these messages are confirmed as well. The reason is that aiormq
        reports a returned message only if the channel is in confirm mode.
        """
        lane, window = self._rpc.lane, self._settings.publish_window
        if lane is None:
            self._send_limit.watch(channel.closing)
            return AiormqPublisherChannel(self._rpc, channel, window=window)
        unconfirmed = UnconfirmedChannel(
            lane, channel.number, on_returned=self._returned, on_failed=self._failed
        )
        self._send_limit.watch(unconfirmed.ended)
        return unconfirmed

    def _confirm_channel(self, channel: Channel) -> PublisherChannelPort:
        lane, window = self._publishing.lane, self._settings.publish_window
        if lane is None:
            self._send_limit.watch(channel.closing)
            return AiormqPublisherChannel(self._publishing, channel, window=window)
        confirming = ConfirmChannel(lane, channel.number, window=window)
        self._send_limit.watch(confirming.ended)
        return confirming

    def _consumer_channel_factory(
        self,
        link: SupervisedConnection,
        spec: ConsumerSpec,
        on_delivery: Callable[[Delivery], None],
    ) -> Callable[[Channel], ConsumerChannelPort]:
        def create(channel: Channel) -> ConsumerChannelPort:
            # Replies are published on the consumer's channel, so its end can tell the limit too.
            if link.lane is None:
                self._send_limit.watch(channel.closing)
                return AiormqConsumerChannel(
                    channel, spec=spec, on_delivery=on_delivery, clock=self._clock
                )
            consuming = ConsumerChannel(
                link.lane,
                channel.number,
                spec=spec,
                on_delivery=on_delivery,
                on_returned=self._returned,
                clock=self._clock,
            )
            self._send_limit.watch(consuming.ended)
            return consuming

        return create

    # --- Notifications of the observer ---

    def _lost(self) -> None:
        if self._observer is not None:
            self._observer.on_connection_lost()

    def _returned(self, message_id: str, reason: str) -> None:
        if self._observer is not None:
            self._observer.on_return(message_id, reason)

    def _failed(self, message_id: str, error: BusError) -> None:
        if self._observer is not None:
            self._observer.on_publish_failed(message_id, error)

    # --- Methods of `Transport` ---

    async def start(self, observer: ReturnListener, *, timeout: float) -> None:
        """Open the connections; see `Transport.start`."""
        if self._observer is not None:
            self._create_connections()  # the former ones are closed, or belong to another loop
        self._observer = observer
        async with asyncio.TaskGroup() as group:
            starts = [group.create_task(_start_link(link, timeout)) for link in self._links]
        for start in starts:
            error = start.result()
            if error is not None:
                raise error
        for publisher in (self._rpc_publisher, self._publisher):
            publisher.start()
        if self._renewal is not None:
            self._renewal.start()

    @property
    def _links(self) -> tuple[SupervisedConnection, SupervisedConnection, SupervisedConnection]:
        return self._rpc, self._publishing, self._consuming

    @property
    def connected_at(self) -> float | None:
        """Time at which the connection of requests was opened; see `Liveness.connected_at`."""
        return self._rpc.connected_at

    @property
    def heard_at(self) -> float:
        """Time of the last sign of the broker; see `Liveness.heard_at`."""
        answered, lane = self._rpc_publisher.answered_at, self._rpc.lane
        return answered if lane is None else max(answered, lane.heard)

    def ping(self) -> None:
        """Let the broker give a sign; see `Liveness.ping`."""
        self._rpc_publisher.ping()

    @property
    def is_refused(self) -> bool:
        """True if a connection finds only hosts of another cluster; see `Transport.is_refused`."""
        return any(link.is_refused for link in self._links)

    async def declare(self, topology: Topology) -> None:
        """Declare a topology. With the setting `topology=verify`, check that it exists."""
        await self._publishing.declare(topology)

    async def depth(self, queue: str) -> int:
        """Return the number of ready messages in a queue."""
        return await ready_in(self._consuming, queue)

    async def send(
        self, envelope: Envelope, address: Address, *, timeout: float, via: Delivery | None = None
    ) -> PublishOutcome:
        """Send one message; see `Transport.send`."""
        self._send_limit.check(envelope)
        if isinstance(via, FastLaneDelivery) and via.channel.alive:
            via.channel.publish(envelope, address)
            return ACCEPTED
        if isinstance(via, AiormqDelivery) and via.channel.alive:
            outcome = await via.channel.publish(
                envelope, address, asyncio.get_running_loop().time() + timeout
            )
        else:
            publisher = self._publisher if address.confirmed else self._rpc_publisher
            outcome = await publisher.publish(envelope, address, timeout=timeout)
        if isinstance(outcome, Returned) and not address.confirmed:
            self._returned(envelope.id, outcome.reason)
            return ACCEPTED
        return outcome

    def _link_of(self, queue: Queue) -> SupervisedConnection:
        return self._rpc if queue.role in {"requests", "replies", "control"} else self._consuming

    def supports_consumer_timeout(self, queue: Queue) -> bool:
        """Return True for quorum queues on RabbitMQ 4.3 and later."""
        return self._link_of(queue).supports_consumer_timeout(queue)

    async def consume(
        self, spec: ConsumerSpec, on_delivery: Callable[[Delivery], None]
    ) -> ConsumerHandle:
        """Start a supervised consumer; see `Transport.consume`.

        Consumers of requests and replies share one connection. All other consumers share a
        second connection.
        """
        queue = spec.queue
        link = self._link_of(queue)
        consumer = RabbitMQConsumer(
            link,
            spec,
            # Replies are published on this channel. Without the fast lane, confirms are needed,
            # because aiormq drops returned messages if the channel is not in confirm mode.
            confirms=queue.role == "requests" and not self._settings.fastlane,
            channel_factory=self._consumer_channel_factory(link, spec, on_delivery),
        )
        return self._started(consumer)

    def _started(self, consumer: C) -> C:
        self._consumers = [other for other in self._consumers if not other.closed] + [consumer]
        consumer.start()
        return consumer

    async def open_control(
        self,
        spec: ConsumerSpec,
        on_delivery: Callable[[Delivery], None],
        on_refused: Callable[[BusError], None],
    ) -> ControlConsumer:
        """Open a control channel; see `ControlTransport.open_control`."""
        link = self._link_of(spec.queue)
        consumer = ControlConsumer(
            link,
            spec,
            confirms=not self._settings.fastlane,  # aiormq sends only on such a channel
            channel_factory=self._consumer_channel_factory(link, spec, on_delivery),
        )
        consumer.prepare(on_refused, self._send_limit.check)
        return self._started(consumer)

    async def close(self) -> None:
        """Close the consumers, then the publishers, then the connections."""
        await asyncio.gather(*(consumer.close() for consumer in self._consumers))
        await asyncio.gather(self._rpc_publisher.close(), self._publisher.close())
        if self._renewal is not None:
            await self._renewal.close()
        await asyncio.gather(*(link.close() for link in self._links))


async def _start_link(link: SupervisedConnection, timeout: float) -> Exception | None:
    """Start a connection. Return an error instead of raising it.

    If the error were raised, the task group would cancel the start of the other connections. The
    errors of those connections would be hidden.
    """
    try:
        await link.start(timeout=timeout)
    except Exception as error:  # noqa: BLE001 - the caller raises it
        return error
    return None
