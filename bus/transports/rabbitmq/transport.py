"""The port on RabbitMQ: three connections, so that an alarm that blocks publishers leaves acks flowing."""

import asyncio
import time
from collections.abc import Callable

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
from bus.messaging.topology.model import Queue, Topology
from bus.security.secret_files import PasswordFile
from bus.settings import Settings
from bus.transports.rabbitmq.aiormq_channels import (
    AiormqConsumerChannel,
    AiormqDelivery,
    AiormqPublisherChannel,
)
from bus.transports.rabbitmq.connection import SupervisedConnection
from bus.transports.rabbitmq.consumer import ConsumerChannelPort, RabbitMQConsumer
from bus.transports.rabbitmq.credential_refresh import CredentialRefresher
from bus.transports.rabbitmq.fastlane.confirm_channel import ACCEPTED, ConfirmChannel
from bus.transports.rabbitmq.fastlane.consumer_channel import ConsumerChannel, FastLaneDelivery
from bus.transports.rabbitmq.fastlane.unconfirmed_channel import UnconfirmedChannel
from bus.transports.rabbitmq.publisher import Publisher, PublisherChannelPort
from bus.transports.rabbitmq.queue_depth import ready_in
from bus.transports.wire_format import ROLES

__all__ = ["RabbitMQTransport"]

Clock = Callable[[], float]


class RabbitMQTransport:
    """`Transport` on RabbitMQ 3.10 and later."""

    has_management_api = True

    def __init__(self, settings: Settings, *, name: str, clock: Clock = time.time) -> None:
        """`name` is the service's; the RabbitMQ UI shows it as that of the connections."""
        self._settings = settings
        self._clock = clock
        self._observer: ReturnListener | None = None
        self._password = PasswordFile.of(settings.password_file)
        self._rpc = self._link(f"{name} requests and replies", on_lost=self._lost)
        self._publishing = self._link(f"{name} publishing")
        self._consuming = self._link(f"{name} consuming")
        self._renewal = CredentialRefresher.by(settings, self._password, self._links, name=name)
        self._questions = Publisher(
            self._rpc, confirms=not settings.fastlane, channel_factory=self._asking
        )
        self._publisher = Publisher(
            self._publishing, confirms=True, channel_factory=self._confirming
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

    # --- what a channel becomes, on the fast lane and without it -----------------------------------------------------

    def _asking(self, channel: Channel) -> PublisherChannelPort:
        """Without the fast lane also what goes unconfirmed is confirmed: only so is its return noticed."""
        lane, window = self._rpc.lane, self._settings.publish_window
        if lane is None:
            return AiormqPublisherChannel(self._rpc, channel, window=window)
        return UnconfirmedChannel(
            lane, channel.number, on_returned=self._returned, on_failed=self._failed
        )

    def _confirming(self, channel: Channel) -> PublisherChannelPort:
        lane, window = self._publishing.lane, self._settings.publish_window
        if lane is None:
            return AiormqPublisherChannel(self._publishing, channel, window=window)
        return ConfirmChannel(lane, channel.number, window=window)

    def _taking(
        self, link: SupervisedConnection, queue: Queue, on_delivery: Callable[[Delivery], None]
    ) -> Callable[[Channel], ConsumerChannelPort]:
        role = ROLES[queue.role]

        def opened(channel: Channel) -> ConsumerChannelPort:
            if link.lane is None:
                return AiormqConsumerChannel(
                    channel, queue=queue.name, role=role, on_delivery=on_delivery, clock=self._clock
                )
            return ConsumerChannel(
                link.lane,
                channel.number,
                queue=queue.name,
                role=role,
                on_delivery=on_delivery,
                on_returned=self._returned,
                clock=self._clock,
            )

        return opened

    # --- the port --------------------------------------------------------------------------------------------------

    def _lost(self) -> None:
        if self._observer is not None:
            self._observer.on_connection_lost()

    def _returned(self, message_id: str, reason: str) -> None:
        if self._observer is not None:
            self._observer.on_return(message_id, reason)

    def _failed(self, message_id: str, error: BusError) -> None:
        if self._observer is not None:
            self._observer.on_publish_failed(message_id, error)

    async def start(self, observer: ReturnListener, *, timeout: float) -> None:
        """Connect; `Transport.start` says what is raised."""
        self._observer = observer
        async with asyncio.TaskGroup() as group:
            starts = [group.create_task(_outcome(link, timeout)) for link in self._links]
        for start in starts:
            error = start.result()
            if error is not None:
                raise error
        for publisher in (self._questions, self._publisher):
            publisher.start()
        if self._renewal is not None:
            self._renewal.start()

    @property
    def _links(self) -> tuple[SupervisedConnection, SupervisedConnection, SupervisedConnection]:
        return self._rpc, self._publishing, self._consuming

    async def declare(self, topology: Topology) -> None:
        """Make it exist; with the setting `topology=verify` look whether it does."""
        await self._publishing.declare(topology)

    async def depth(self, queue: str) -> int:
        """Messages that are ready in a queue."""
        return await ready_in(self._consuming, queue)

    async def send(
        self, envelope: Envelope, address: Address, *, timeout: float, via: Delivery | None = None
    ) -> PublishOutcome:
        """Send one message."""
        if isinstance(via, FastLaneDelivery) and via.channel.alive:
            via.channel.publish(envelope, address)
            return ACCEPTED
        if isinstance(via, AiormqDelivery) and via.channel.alive:
            outcome = await via.channel.publish(
                envelope, address, asyncio.get_running_loop().time() + timeout
            )
        else:
            publisher = self._publisher if address.confirmed else self._questions
            outcome = await publisher.publish(envelope, address, timeout=timeout)
        if isinstance(outcome, Returned) and not address.confirmed:
            self._returned(envelope.id, outcome.reason)
            return ACCEPTED
        return outcome

    def _link_of(self, queue: Queue) -> SupervisedConnection:
        return self._rpc if queue.role in {"requests", "replies"} else self._consuming

    def supports_consumer_timeout(self, queue: Queue) -> bool:
        """From RabbitMQ 4.3 on, for quorum queues."""
        return self._link_of(queue).supports_consumer_timeout(queue)

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
        """Consume, supervised. Requests and replies share their connection; jobs and events have another."""
        link = self._link_of(queue)
        consumer = RabbitMQConsumer(
            link,
            queue,
            topology,
            prefetch=prefetch,
            acks=acks,
            # Without the fast lane replies need confirms: aiormq drops what comes back on a channel that has none.
            confirms=queue.role == "requests" and not self._settings.fastlane,
            channel_factory=self._taking(link, queue, on_delivery),
            consumer_timeout=consumer_timeout,
        )
        self._consumers = [each for each in self._consumers if not each.closed] + [consumer]
        consumer.start()
        return consumer

    async def close(self) -> None:
        """Close everything; the reply consumer's connection last."""
        await asyncio.gather(*(consumer.close() for consumer in self._consumers))
        await asyncio.gather(self._questions.close(), self._publisher.close())
        if self._renewal is not None:
            await self._renewal.close()
        await asyncio.gather(*(link.close() for link in self._links))


async def _outcome(link: SupervisedConnection, timeout: float) -> Exception | None:
    """How the link's start ended; one that fails must not hide another's reason behind a cancellation."""
    try:
        await link.start(timeout=timeout)
    except Exception as error:  # noqa: BLE001 - raised by the caller, one of them
        return error
    return None
