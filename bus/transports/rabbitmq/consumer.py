"""A supervised consumer: one channel, one consumer, declared and consumed again for ever."""

import asyncio
import logging
import secrets
import time
from collections.abc import Callable
from functools import cached_property

import aiormq.abc
from aiormq.channel import Channel

from bus.envelope import Envelope, Traffic
from bus.errors import BusError
from bus.recovery import supervised
from bus.topology import Purpose, Queue, Topology
from bus.transport import Delivery
from bus.transports import wire
from bus.transports.rabbitmq.codec import from_message
from bus.transports.rabbitmq.faults import TROUBLE, translated, translating
from bus.transports.rabbitmq.link import CLOSE_TIMEOUT, RPC_TIMEOUT, Link, quietly_closed

__all__ = ["Consumer", "RabbitMQDelivery"]

log = logging.getLogger("bus.rabbitmq")

TRAFFIC: dict[Purpose, Traffic] = {
    "requests": "request",
    "replies": "reply",
    "jobs": "job",
    "events": "event",
    "retry": "job",
    "dead": "job",
}


class Session:
    """One channel's life. Deliveries of a session that has ended are never acked: their tags mean nothing on the next channel."""

    def __init__(self, channel: Channel) -> None:
        self.channel = channel
        self.tag = f"trunkline-{secrets.token_hex(6)}"  # fresh: a tag that is used again ends a connection on 4.3
        self.ended: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    @property
    def alive(self) -> bool:
        return not self.ended.done() and not self.channel.is_closed

    def end(self, why: str) -> None:
        if not self.ended.done():
            self.ended.set_result(why)


class RabbitMQDelivery:
    """A message as it was delivered on one channel."""

    def __init__(self, session: Session, message: aiormq.abc.DeliveredMessage, queue: Queue, clock: Callable[[], float]) -> None:
        self._session = session
        self._message = message
        self._queue = queue
        self._received = int(clock() * 1000)
        self._settled = False

    @cached_property
    def envelope(self) -> Envelope:
        """The message; `Delivery.envelope` says more."""
        return wire.decode(
            from_message(self._message),
            traffic=TRAFFIC[self._queue.purpose],
            queue=self._queue.name,
            received=self._received,
        )

    @property
    def redelivered(self) -> bool:
        """Whether the broker delivered it before."""
        return bool(self._message.redelivered)

    @property
    def channel(self) -> Channel | None:
        """The channel that it came on, while that lives."""
        return self._session.channel if self._session.alive else None

    async def ack(self) -> bool:
        """Done."""
        return await self._settle(requeue=False)

    async def requeue(self) -> bool:
        """Back to the broker, by nack: on 4.3 that does not count towards the delivery limit, as a reject would."""
        return await self._settle(requeue=True)

    async def _settle(self, *, requeue: bool) -> bool:
        if not self._session.alive or self._message.delivery_tag is None:
            return False
        if self._settled:
            return True
        self._settled = True
        channel, tag = self._session.channel, self._message.delivery_tag
        try:
            # The queue in front of a connection that is going takes ten frames, and nobody takes them out.
            with translating("settling a delivery"):
                async with asyncio.timeout(CLOSE_TIMEOUT):
                    await (channel.basic_nack(tag, requeue=True, wait=False) if requeue else channel.basic_ack(tag, wait=False))
        except BusError:
            return False
        return True


class Consumer:
    """A queue's consumer; `Consumption` is its port."""

    def __init__(  # noqa: PLR0913 - what `Transport.consume` takes, and the link
        self,
        link: Link,
        queue: Queue,
        topology: Topology,
        *,
        prefetch: int,
        on_delivery: Callable[[Delivery], None],
        acks: bool,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._link = link
        self._queue = queue
        self._topology = topology
        self._prefetch = prefetch
        self._on_delivery = on_delivery
        self._acks = acks
        self._clock = clock
        self._session: Session | None = None
        self._ready = asyncio.Event()
        self._stopping = False
        self._task: asyncio.Task[None] | None = None
        self.trouble: str | None = None

    @property
    def name(self) -> str:
        """The queue's name."""
        return self._queue.name

    @property
    def ready(self) -> bool:
        """Whether the broker has it registered now."""
        return self._ready.is_set() and self._session is not None and self._session.alive

    async def wait_ready(self) -> None:
        """Returns when it is ready."""
        while not self.ready:
            self._ready.clear()
            await self._ready.wait()

    def start(self) -> None:
        """Consume, and again whenever that ends."""
        self._task = asyncio.create_task(supervised(self._step, trouble=TROUBLE, report=self._report), name=f"consumer {self.name}")

    async def _step(self) -> None:
        if self._stopping:
            await asyncio.Event().wait()  # until close: a consumer that was told to stop does not come back
        await self._link.up.wait()
        await self._link.declare(self._topology)
        # Confirms: replies go out on this channel, and without confirms aiormq drops what comes back.
        session = Session(await self._link.channel(confirms=self._queue.purpose == "requests"))
        try:
            await self._consume(session)
            if self._stopping:
                return  # told while it was about to consume: what came goes back with the channel
            closing = session.channel.closing
            await asyncio.wait((closing, session.ended), return_when=asyncio.FIRST_COMPLETED)
            if not self._stopping:
                self.trouble = session.ended.result() if session.ended.done() else "its channel was closed"
                log.warning("a consumer ended; consuming again", extra={"queue": self.name, "why": self.trouble})
        finally:
            self._ready.clear()
            session.end("over")
            await quietly_closed(session.channel)

    async def _consume(self, session: Session) -> None:
        async def deliver(message: aiormq.abc.DeliveredMessage) -> None:
            self._on_delivery(RabbitMQDelivery(session, message, self._queue, self._clock))

        channel = session.channel
        channel.on_consumer_cancel_callbacks.add(lambda _: session.end("the broker cancelled it"))
        await channel.basic_qos(prefetch_count=self._prefetch, timeout=RPC_TIMEOUT)
        await channel.basic_consume(self.name, deliver, no_ack=not self._acks, consumer_tag=session.tag, timeout=RPC_TIMEOUT)
        self._session = session
        self.trouble = None
        if not self._stopping:
            self._ready.set()

    def _report(self, error: BaseException) -> None:
        known = str(translated(error, f"consuming {self.name}"))
        if known != self.trouble:
            log.warning("cannot consume; trying again", extra={"queue": self.name, "why": known})
        self.trouble = known

    async def cancel(self) -> None:
        """No further deliveries; the channel stays for acks."""
        self._stopping = True
        self._ready.clear()
        if self._session is not None and self._session.alive:
            with translating(f"cancelling the consumer of {self.name}"):
                await self._session.channel.basic_cancel(self._session.tag, timeout=CLOSE_TIMEOUT)

    async def close(self) -> None:
        """Consume no more, and close the channel."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task], timeout=2 * CLOSE_TIMEOUT)
