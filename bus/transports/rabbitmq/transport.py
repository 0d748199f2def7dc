"""The port on RabbitMQ: three connections, so that an alarm that blocks publishers leaves acks flowing."""

import asyncio
import time
from collections.abc import Callable

from bus.envelope import Envelope
from bus.settings import Settings
from bus.topology import Address, Queue, Topology
from bus.transport import Accepted, Consumption, Delivery, Observer, Outcome, Returned
from bus.transports import wire
from bus.transports.rabbitmq.consumer import Consumer, RabbitMQDelivery
from bus.transports.rabbitmq.link import Link
from bus.transports.rabbitmq.publisher import Publisher, publish_on

__all__ = ["RabbitMQTransport"]


class RabbitMQTransport:
    """`Transport` on RabbitMQ 3.10 and later."""

    def __init__(self, settings: Settings, *, name: str, clock: Callable[[], float] = time.time) -> None:
        """`name` is the service's; the RabbitMQ UI shows it as that of the connections."""
        self._settings = settings
        self._clock = clock
        self._observer: Observer | None = None
        self._rpc = self._link(f"{name} requests and replies", on_lost=self._lost)
        self._publishing = self._link(f"{name} publishing")
        self._consuming = self._link(f"{name} consuming")
        self._questions = Publisher(self._rpc, window=settings.publish_window)
        self._publisher = Publisher(self._publishing, window=settings.publish_window)
        self._consumers: list[Consumer] = []

    def _link(self, name: str, *, on_lost: Callable[[], None] | None = None) -> Link:
        return Link(
            self._settings.url.get_secret_value(),
            name=name,
            heartbeat=self._settings.heartbeat,
            attempt_timeout=self._settings.connect_timeout,
            on_lost=on_lost,
        )

    def _lost(self) -> None:
        if self._observer is not None:
            self._observer.lost()

    async def start(self, observer: Observer, *, timeout: float) -> None:
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

    @property
    def _links(self) -> tuple[Link, Link, Link]:
        return self._rpc, self._publishing, self._consuming

    async def declare(self, topology: Topology) -> None:
        """Make it exist."""
        await self._publishing.declare(topology)

    async def send(self, envelope: Envelope, address: Address, *, timeout: float, via: Delivery | None = None) -> Outcome:
        """Send one message. Without the fast lane the unconfirmed ones are confirmed, too: only so is their return noticed."""
        outcome = await self._send(wire.encode(envelope), address, timeout, via)
        if isinstance(outcome, Returned) and not address.confirmed and self._observer is not None:
            self._observer.returned(envelope.id, outcome.reason)
            return Accepted()
        return outcome

    async def _send(self, message: wire.Wire, address: Address, timeout: float, via: Delivery | None) -> Outcome:
        channel = via.channel if isinstance(via, RabbitMQDelivery) else None
        if channel is not None:
            return await publish_on(channel, message, address, timeout=timeout)
        publisher = self._publisher if address.confirmed else self._questions
        return await publisher.publish(message, address, timeout=timeout)

    async def consume(
        self,
        queue: Queue,
        topology: Topology,
        *,
        prefetch: int,
        on_delivery: Callable[[Delivery], None],
        acks: bool = True,
    ) -> Consumption:
        """Consume, supervised. Requests and replies share their connection; jobs and events have another."""
        link = self._rpc if queue.purpose in {"requests", "replies"} else self._consuming
        consumer = Consumer(link, queue, topology, prefetch=prefetch, on_delivery=on_delivery, acks=acks, clock=self._clock)
        self._consumers.append(consumer)
        consumer.start()
        return consumer

    async def close(self) -> None:
        """Close everything; the reply consumer's connection last."""
        await asyncio.gather(*(consumer.close() for consumer in self._consumers))
        await asyncio.gather(self._questions.close(), self._publisher.close())
        await asyncio.gather(*(link.close() for link in self._links))


async def _outcome(link: Link, timeout: float) -> Exception | None:
    """How the link's start ended; one that fails must not hide another's reason behind a cancellation."""
    try:
        await link.start(timeout=timeout)
    except Exception as error:  # noqa: BLE001 - raised by the caller, one of them
        return error
    return None
