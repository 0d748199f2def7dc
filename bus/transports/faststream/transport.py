"""The port on a FastStream `RabbitBroker`: one connection, which is the broker's, with channels of our own on it."""

import asyncio
import time
from collections.abc import Callable

from faststream.rabbit import RabbitBroker

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
from bus.messaging.topology.model import Queue, Topology
from bus.security.secret_files import PasswordFile
from bus.settings import Settings
from bus.transports.faststream.connection import RobustConnection
from bus.transports.faststream.subscriber import FastStreamConsumer
from bus.transports.rabbitmq.aiormq_channels import (
    AiormqConsumerChannel,
    AiormqDelivery,
    AiormqPublisherChannel,
)
from bus.transports.rabbitmq.connection import Channel, connection_url
from bus.transports.rabbitmq.credential_refresh import CredentialRefresher
from bus.transports.rabbitmq.publisher import Publisher
from bus.transports.rabbitmq.queue_depth import ready_in
from bus.transports.wire_format import ROLES

__all__ = ["FastStreamTransport", "broker_of_its_own"]

Clock = Callable[[], float]
RECONNECT_INTERVAL_SECONDS = 1.0
"""Seconds between two attempts, at most as long as the bus's own; FastStream's default is 5."""


def broker_of_its_own(settings: Settings, *, name: str) -> RabbitBroker:
    """A broker that serves nothing but the bus, by the settings; the RabbitMQ UI shows its connection as `name`.

    FastStream writes no line for each message, since the bus does, and injects nothing by type.
    """
    return RabbitBroker(
        connection_url(settings.address, heartbeat=settings.heartbeat, name=name),
        timeout=settings.connect_timeout,
        reconnect_interval=RECONNECT_INTERVAL_SECONDS,
        logger=None,
        apply_types=False,
    )


class FastStreamTransport:
    """`Transport` on a FastStream broker, beside whatever else is served on it.

    A broker that runs already is its application's, and stays up when this closes; any other is connected at the start
    and stopped at the close.
    """

    has_management_api = True

    def __init__(
        self,
        broker: RabbitBroker,
        *,
        settings: Settings,
        name: str,
        own: bool = False,
        clock: Clock = time.time,
    ) -> None:
        """`name` is the service's, for logs. Where messages go is the broker's affair, and the setting `url` is not looked at.

        `own`: the broker is one by these settings (`broker_of_its_own`), so that a password in a file is renewed on its connection.
        """
        self._settings = settings
        self._clock = clock
        self._observer: ReturnListener | None = None
        self._link = RobustConnection(
            broker, name=name, on_lost=self._lost, verify=settings.topology == "verify"
        )
        file = PasswordFile.of(settings.password_file) if own else None
        self._renewal = CredentialRefresher.by(settings, file, (self._link,), name=name)
        # Also what goes unconfirmed is confirmed: only so is its return noticed. On a channel of its own, so that no request
        # waits for a place behind events.
        self._questions = Publisher(self._link, confirms=True, channel_factory=self._publishing)
        self._publisher = Publisher(self._link, confirms=True, channel_factory=self._publishing)
        self._consumers: list[FastStreamConsumer] = []

    def _publishing(self, channel: Channel) -> AiormqPublisherChannel:
        return AiormqPublisherChannel(self._link, channel, window=self._settings.publish_window)

    def _taking(
        self, queue: Queue, on_delivery: Callable[[Delivery], None]
    ) -> Callable[[Channel], AiormqConsumerChannel]:
        def opened(channel: Channel) -> AiormqConsumerChannel:
            return AiormqConsumerChannel(
                channel,
                queue=queue.name,
                role=ROLES[queue.role],
                on_delivery=on_delivery,
                clock=self._clock,
            )

        return opened

    def _lost(self) -> None:
        if self._observer is not None:
            self._observer.on_connection_lost()

    # --- the port --------------------------------------------------------------------------------------------------

    async def start(self, observer: ReturnListener, *, timeout: float) -> None:
        """Connect; `Transport.start` says what is raised."""
        self._observer = observer
        await self._link.start(timeout=timeout)
        for publisher in (self._questions, self._publisher):
            publisher.start()
        if self._renewal is not None:
            self._renewal.start()

    async def connect(self, *, timeout: float) -> None:
        """Only connect, before the broker's own start, whose errors say less; raises what `start` raises."""
        await self._link.connect(timeout=timeout)

    async def declare(self, topology: Topology) -> None:
        """Make it exist."""
        await self._link.declare(topology)

    async def depth(self, queue: str) -> int:
        """Messages that are ready in a queue."""
        return await ready_in(self._link, queue)

    async def send(
        self, envelope: Envelope, address: Address, *, timeout: float, via: Delivery | None = None
    ) -> PublishOutcome:
        """Send one message."""
        outcome = await self._sent(envelope, address, timeout, via)
        if isinstance(outcome, Returned) and not address.confirmed:
            if self._observer is not None:
                self._observer.on_return(envelope.id, outcome.reason)
            return Accepted()
        return outcome

    async def _sent(
        self, envelope: Envelope, address: Address, timeout: float, via: Delivery | None
    ) -> PublishOutcome:
        if isinstance(via, AiormqDelivery) and via.channel.alive:
            return await via.channel.publish(
                envelope, address, asyncio.get_running_loop().time() + timeout
            )
        publisher = self._publisher if address.confirmed else self._questions
        return await publisher.publish(envelope, address, timeout=timeout)

    def supports_consumer_timeout(self, queue: Queue) -> bool:
        """From RabbitMQ 4.3 on, for quorum queues."""
        return self._link.supports_consumer_timeout(queue)

    async def consume(
        self,
        queue: Queue,
        topology: Topology,
        *,
        prefetch: int,
        on_delivery: Callable[[Delivery], None],
        acks: bool = True,
        consumer_timeout: float | None = None,
    ) -> ConsumerHandle:
        """Consume, supervised, by a subscriber of FastStream's."""
        consumer = FastStreamConsumer(
            self._link,
            queue,
            topology,
            prefetch=prefetch,
            acks=acks,
            confirms=queue.role == "requests",
            opened=self._taking(queue, on_delivery),
            consumer_timeout=consumer_timeout,
        )
        self._consumers = [each for each in self._consumers if not each.closed] + [consumer]
        consumer.start()
        return consumer

    async def close(self) -> None:
        """Close everything that is ours."""
        await asyncio.gather(*(consumer.close() for consumer in self._consumers))
        await asyncio.gather(self._questions.close(), self._publisher.close())
        if self._renewal is not None:
            await self._renewal.close()
        await self._link.close()
