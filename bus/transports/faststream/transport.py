"""The transport that uses the connection of a FastStream `RabbitBroker`.

It opens its own channels on that connection.
"""

import asyncio
import time
from collections.abc import Callable

from faststream.rabbit import RabbitBroker

from bus.errors import BusError
from bus.messaging.broker_addresses import require_urls
from bus.messaging.envelope import Envelope
from bus.messaging.ports.transport import (
    Accepted,
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
from bus.transports.faststream.connection import RobustConnection, rotate_hosts
from bus.transports.faststream.subscriber import FastStreamConsumer, FastStreamControlConsumer
from bus.transports.rabbitmq.aiormq_channels import (
    AiormqConsumerChannel,
    AiormqDelivery,
    AiormqPublisherChannel,
)
from bus.transports.rabbitmq.body_limit import SendLimit
from bus.transports.rabbitmq.credential_refresh import CredentialRefresher
from bus.transports.rabbitmq.hosts_connection import HostRotation
from bus.transports.rabbitmq.open_connection import Channel
from bus.transports.rabbitmq.publisher import Publisher
from bus.transports.rabbitmq.queue_depth import ready_in

__all__ = ["FastStreamTransport", "broker_of_its_own"]

Clock = Callable[[], float]
RECONNECT_INTERVAL_SECONDS = 1.0
"""Seconds between two attempts to reconnect.

The maximum wait of the RabbitMQ transport is also 1 s. FastStream's default is 5 s.
"""


def broker_of_its_own(settings: Settings, *, name: str) -> RabbitBroker:
    """Return a FastStream broker that only the bus uses.

    If the setting `url` lists several hosts, each attempt to connect takes the next host.

    FastStream does not log the broker's messages, because the bus logs them. FastStream's
    dependency injection by type is off.

    Args:
        settings: The settings with the address, the heartbeat and the connect timeout.
        name: The name of the connection in RabbitMQ's UI.
    """
    rotation = HostRotation(require_urls(settings.address), heartbeat=settings.heartbeat, name=name)
    broker = RabbitBroker(
        str(rotation.url),
        timeout=settings.connect_timeout,
        reconnect_interval=RECONNECT_INTERVAL_SECONDS,
        logger=None,
        apply_types=False,
    )
    rotate_hosts(broker, rotation)
    return broker


class FastStreamTransport:
    """A `Transport` that uses a FastStream broker. The application can add subscribers.

    If the application has started the broker, `close` does not stop the broker. If the transport
    has started the broker, `close` stops it.
    """

    has_management_api = True
    is_refused = False
    """Always False: if the only connection is refused, none of the consumers is registered."""

    def __init__(
        self,
        broker: RabbitBroker,
        *,
        settings: Settings,
        name: str,
        own: bool = False,
        clock: Clock = time.time,
    ) -> None:
        """Create the transport.

        Args:
            broker: The broker. The transport uses this broker's address and ignores the setting
                `url`.
            settings: The settings of the service.
            name: The service's name, for logs.
            own: True if `broker_of_its_own` created the broker from these settings. If True, the
                transport renews the connection's password from the password file.
            clock: Returns the wall clock's time in seconds since the epoch.
        """
        self._settings = settings
        self._broker, self._name = broker, name
        self._clock = clock
        self._observer: ReturnListener | None = None
        self._send_limit = SendLimit(settings.max_message)
        self._password = PasswordFile.of(settings.password_file) if own else None
        self._create_connection()

    def _create_connection(self) -> None:
        """Create the connection and the publishers, which are not open yet."""
        settings = self._settings
        self._link = RobustConnection(
            self._broker,
            name=self._name,
            on_lost=self._report_lost,
            verify=settings.topology == "verify",
        )
        self._refresher = CredentialRefresher.by(
            settings, self._password, (self._link,), name=self._name
        )
        # Both channels are in confirm mode, because aiormq reports a returned message only in
        # confirm mode. Requests have a separate channel. So a request does not wait while events
        # use all slots of the publish window of the other channel.
        self._request_publisher = Publisher(
            self._link, confirms=True, channel_factory=self._open_publisher_channel
        )
        self._publisher = Publisher(
            self._link, confirms=True, channel_factory=self._open_publisher_channel
        )
        self._consumers: list[FastStreamConsumer] = []

    def _open_publisher_channel(self, channel: Channel) -> AiormqPublisherChannel:
        self._send_limit.watch(channel.closing)
        return AiormqPublisherChannel(self._link, channel, window=self._settings.publish_window)

    def _consumer_channel_factory(
        self, spec: ConsumerSpec, on_delivery: Callable[[Delivery], None]
    ) -> Callable[[Channel], AiormqConsumerChannel]:
        def open_channel(channel: Channel) -> AiormqConsumerChannel:
            # Replies are published on the consumer's channel.
            self._send_limit.watch(channel.closing)
            return AiormqConsumerChannel(
                channel, spec=spec, on_delivery=on_delivery, clock=self._clock
            )

        return open_channel

    def _report_lost(self) -> None:
        if self._observer is not None:
            self._observer.on_connection_lost()

    # --- Port ---

    async def start(self, observer: ReturnListener, *, timeout: float) -> None:
        """Connect. For the errors see `Transport.start`."""
        if self._observer is not None:
            self._create_connection()  # the former one is closed, or belongs to another loop
        self._observer = observer
        await self._link.start(timeout=timeout)
        for publisher in (self._request_publisher, self._publisher):
            publisher.start()
        if self._refresher is not None:
            self._refresher.start()

    async def connect(self, *, timeout: float) -> None:
        """Connect. For the errors see `start`.

        The FastStream integration calls this method before the broker is started, because
        `RabbitBroker.start` raises less exact errors.
        """
        await self._link.connect(timeout=timeout)

    async def declare(self, topology: Topology) -> None:
        """Declare the topology."""
        await self._link.declare(topology)

    async def depth(self, queue: str) -> int:
        """Return the number of ready messages in a queue."""
        return await ready_in(self._link, queue)

    async def send(
        self, envelope: Envelope, address: Address, *, timeout: float, via: Delivery | None = None
    ) -> PublishOutcome:
        """Send one message."""
        self._send_limit.check(envelope)
        outcome = await self._publish(envelope, address, timeout, via)
        if isinstance(outcome, Returned) and not address.confirmed:
            if self._observer is not None:
                self._observer.on_return(envelope.id, outcome.reason)
            return Accepted()
        return outcome

    async def _publish(
        self, envelope: Envelope, address: Address, timeout: float, via: Delivery | None
    ) -> PublishOutcome:
        if isinstance(via, AiormqDelivery) and via.channel.alive:
            return await via.channel.publish(
                envelope, address, asyncio.get_running_loop().time() + timeout
            )
        publisher = self._publisher if address.confirmed else self._request_publisher
        return await publisher.publish(envelope, address, timeout=timeout)

    def supports_consumer_timeout(self, queue: Queue) -> bool:
        """Return True for a quorum queue on RabbitMQ 4.3 or later."""
        return self._link.supports_consumer_timeout(queue)

    async def consume(
        self, spec: ConsumerSpec, on_delivery: Callable[[Delivery], None]
    ) -> ConsumerHandle:
        """Start a supervised consumer that uses a FastStream subscriber."""
        consumer = FastStreamConsumer(
            self._link,
            spec,
            confirms=spec.queue.role == "requests",
            opened=self._consumer_channel_factory(spec, on_delivery),
        )
        self._consumers = [started for started in self._consumers if not started.closed]
        self._consumers.append(consumer)
        consumer.start()
        return consumer

    async def open_control(
        self,
        spec: ConsumerSpec,
        on_delivery: Callable[[Delivery], None],
        on_refused: Callable[[BusError], None],
    ) -> FastStreamControlConsumer:
        """Open a control channel; see `ControlTransport.open_control`."""
        consumer = FastStreamControlConsumer(
            self._link,
            spec,
            confirms=True,  # aiormq sends only on a channel with confirms
            opened=self._consumer_channel_factory(spec, on_delivery),
        )
        consumer.prepare(on_refused, self._send_limit.check)
        self._consumers.append(consumer)
        consumer.start()
        return consumer

    async def close(self) -> None:
        """Close consumers and channels. Stop the broker if the transport started the broker."""
        await asyncio.gather(*(consumer.close() for consumer in self._consumers))
        await asyncio.gather(self._request_publisher.close(), self._publisher.close())
        if self._refresher is not None:
            await self._refresher.close()
        await self._link.close()
