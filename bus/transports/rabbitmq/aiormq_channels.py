"""Channels without the fast lane: the same by aio-pika's own means, for comparison and as the way out (`BUS_FASTLANE=off`)."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from functools import cached_property, partial
from typing import Any

import aiormq.abc
from aiormq.channel import Channel
from aiormq.exceptions import ChannelInvalidStateError, DeliveryError, PublishError
from pamqp.commands import Basic
from yarl import URL

from bus.errors import (
    BusError,
    ConnectionLost,
    DeadlineExceeded,
    InvalidArgument,
    PermissionDenied,
    Unavailable,
)
from bus.messaging.envelope import Envelope, MessageRole
from bus.messaging.ports.transport import Accepted, Delivery, Nacked, PublishOutcome, Returned
from bus.messaging.topology.addresses import Address
from bus.transports import wire_format as wire
from bus.transports.rabbitmq.amqp.access_refused import is_access_refused
from bus.transports.rabbitmq.amqp.frames import publish_method
from bus.transports.rabbitmq.amqp.pamqp_codec import from_message, to_properties
from bus.transports.rabbitmq.connection import CLOSE_TIMEOUT_SECONDS, OpenConnection
from bus.transports.rabbitmq.exceptions import map_errors
from bus.transports.rabbitmq.fastlane.confirm_channel import MAX_BODY_BYTES, UNFIT
from bus.transports.rabbitmq.fastlane.confirm_watchdog import ConfirmStats

__all__ = ["AiormqConsumerChannel", "AiormqDelivery", "AiormqPublisherChannel"]

HEAD = 24
"""Bytes of a header frame beside the properties, and some to spare."""


class AiormqPublisherChannel:
    """Publishes with confirms on one channel.

    One id is never under way twice on it: aiormq tells returns apart by id alone.
    """

    window_exhausted = False  # who gives up gives the place back

    def __init__(self, link: OpenConnection, channel: Channel, *, window: int) -> None:
        self._link = link
        self._channel = channel
        self._window = asyncio.Semaphore(window)
        self._in_flight: dict[str, asyncio.Event] = {}
        self.confirm_stats = ConfirmStats()
        self._newest: dict[Address, str] = {}
        """By address the id of what was published there last, while that is under way."""
        self.ended: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    @property
    def alive(self) -> bool:
        """Whether it can publish."""
        return not self.ended.done() and not self._channel.is_closed

    @property
    def awaiting_confirms(self) -> bool:
        """Whether the broker's word is waited for."""
        return bool(self._in_flight)

    async def publish(self, envelope: Envelope, address: Address, ends: float) -> PublishOutcome:
        """Publish, and what the broker says by `ends` (loop time); `Transport.send` says what is raised."""
        async with self._place(envelope.id, ends):
            self._newest[address] = envelope.id
            try:
                outcome = await publish_on(self._channel, envelope, address, ends)
            except PermissionDenied as error:  # the broker names no message: of several that go there it is surely the last
                if self._newest.get(address) != envelope.id:
                    raise
                raise PermissionDenied(f"not sent: {error}") from None
            finally:
                if self._newest.get(address) == envelope.id:
                    del self._newest[address]
        if isinstance(outcome, Nacked):
            self.confirm_stats.refuse(asyncio.get_running_loop().time())
        else:
            self.confirm_stats.accept()
        return outcome

    @asynccontextmanager
    async def _place(self, message_id: str, ends: float) -> AsyncIterator[None]:
        """A place in the window, no other copy of the message under way, and no alarm that the broker has told us of."""
        try:
            async with asyncio.timeout_at(ends):
                await self._window.acquire()
        except TimeoutError:
            raise Unavailable("not sent: too many publishes wait for their confirm") from None
        try:
            await self._alone(message_id, ends)
            done = self._in_flight[message_id] = asyncio.Event()
            try:
                yield
            finally:
                del self._in_flight[message_id]
                done.set()
        finally:
            self._window.release()

    async def _alone(self, message_id: str, ends: float) -> None:
        try:
            async with asyncio.timeout_at(ends):
                await self._link.wait_unblocked()
                while (copy := self._in_flight.get(message_id)) is not None:
                    await copy.wait()
        except TimeoutError:
            raise Unavailable("not sent: the broker takes no publishes now") from None

    def release(self) -> None:
        """It is about to be closed."""
        if not self.ended.done():
            self.ended.set_result("closed")


async def publish_on(
    channel: Channel, envelope: Envelope, address: Address, ends: float
) -> PublishOutcome:
    """Publish on this confirmed channel, and wait for what the broker says, until `ends` (loop time).

    `PermissionDenied` where it, or another that goes there, was refused.
    """
    if len(envelope.body) > MAX_BODY_BYTES and envelope.queue is None:
        raise InvalidArgument(
            f"the message has {len(envelope.body)} bytes, and {MAX_BODY_BYTES} is the most; store it and send a reference"
        )
    properties = fitting(
        to_properties(wire.encode(envelope), user=_user(channel)), address, channel.max_content_size
    )
    timeout = ends - asyncio.get_running_loop().time()
    if timeout <= 0:
        raise DeadlineExceeded("the deadline had passed before it was sent")
    try:
        with map_errors("waiting for the confirm"):
            return await _confirmed(channel, envelope.body, properties, address, timeout)
    except DeadlineExceeded:
        raise
    except BusError as error:
        if is_access_refused(str(error), address):
            raise PermissionDenied(str(error), maybe_executed=True) from None
        sent = not isinstance(error, NotSent)
        raise ConnectionLost(str(error), maybe_executed=sent) from None


def fitting(properties: Basic.Properties, address: Address, largest: int) -> Basic.Properties:
    """The properties, where they fit a frame of `largest` bytes; `InvalidArgument` for what the broker or the protocol would not take.

    aiormq finds out while it writes, where it could be anything, or not at all; the broker then ends the connection.
    """
    try:
        publish_method(address.exchange, address.routing_key, mandatory=address.mandatory)
        size = len(properties.marshal())
    except (*UNFIT, TypeError) as error:  # pamqp says the latter
        raise InvalidArgument(
            "an attribute, header or address is too long, or no text or number of AMQP's"
        ) from error
    if 0 < largest < size + HEAD:  # below 0 where the broker sets no limit
        raise InvalidArgument(
            f"the headers have {size} bytes, and have to fit a frame of {largest}"
        )
    return properties


def _user(channel: Channel) -> str | None:
    """Whose connection the channel is of."""
    return getattr(
        channel.connection, "url", URL()
    ).user  # the abstract class has no url, and the only real one has


class NotSent(Unavailable):
    """The channel was closed before anything was written."""


async def _confirmed(
    channel: Channel, body: bytes, properties: Basic.Properties, address: Address, timeout: float
) -> PublishOutcome:
    try:
        await channel.basic_publish(
            body,
            exchange=address.exchange,
            routing_key=address.routing_key,
            properties=properties,
            mandatory=address.mandatory,
            timeout=timeout,
            wait=False,
        )
    except PublishError as error:
        return Returned(reason=str(getattr(error.frame, "reply_text", "") or "returned"))
    except DeliveryError:
        return Nacked(reason="basic.nack")
    except ChannelInvalidStateError:
        raise NotSent("not sent: the channel was closed") from None
    except TimeoutError:
        raise DeadlineExceeded("no confirm within the deadline", maybe_executed=True) from None
    return Accepted()


class AiormqConsumerChannel:
    """One consumer's channel. Once it has ended nothing is acked: its tags mean nothing on the next channel."""

    def __init__(
        self,
        channel: Channel,
        *,
        queue: str,
        role: MessageRole,
        on_delivery: Callable[[Delivery], None],
        clock: Callable[[], float],
    ) -> None:
        self.channel = channel
        self.queue = queue
        self.role = role
        self.clock = clock
        self._on_delivery = on_delivery
        self._unsettled = 0
        self._released = False
        self.cancelled = False
        self.idle = asyncio.Event()
        self.ended: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        channel.on_consumer_cancel_callbacks.add(self._cancelled)

    @property
    def alive(self) -> bool:
        """Whether what came on it can be settled."""
        return not self._released and not self.channel.is_closed

    @property
    def has_unsettled(self) -> bool:
        """Whether something that came is not settled."""
        return self._unsettled > 0

    def _cancelled(self, _frame: object) -> None:
        self.cancelled = True
        self.end("the broker cancelled it")

    async def take(self, message: aiormq.abc.DeliveredMessage) -> None:
        """A message, from aiormq."""
        if message.delivery_tag is not None:
            self.deliver(
                message.delivery_tag,
                partial(from_message, message),
                redelivered=bool(message.redelivered),
            )

    def deliver(self, tag: int, read: Callable[[], wire.AmqpMessage], *, redelivered: bool) -> None:
        """A message that came on this channel; `read` says what it is, when somebody wants to know."""
        self._unsettled += 1
        self._on_delivery(AiormqDelivery(self, tag, read, redelivered=redelivered))

    def settled(self) -> None:
        """One of them was."""
        self._unsettled -= 1
        if self.cancelled and not self._unsettled:
            self.idle.set()

    async def publish(self, envelope: Envelope, address: Address, ends: float) -> PublishOutcome:
        """On this channel, which is a confirmed one, before the ack of what is answered."""
        return await publish_on(self.channel, envelope, address, ends)

    def end(self, why: str) -> None:
        """Who watches consumes anew."""
        if not self.ended.done():
            self.ended.set_result(why)

    def release(self) -> None:
        """It is about to be closed."""
        self._released = True
        self.end("closed")


class AiormqDelivery:
    """A message as it was delivered on one channel."""

    def __init__(
        self,
        channel: AiormqConsumerChannel,
        tag: int,
        read: Callable[[], wire.AmqpMessage],
        *,
        redelivered: bool,
    ) -> None:
        self.channel = channel
        self.redelivered = redelivered
        self._tag = tag
        self._read = read
        self._received = int(channel.clock() * 1000)
        self._settled = False

    @cached_property
    def envelope(self) -> Envelope:
        """The message; `Delivery.envelope` says more."""
        return wire.decode(
            self._read(), role=self.channel.role, queue=self.channel.queue, received=self._received
        )

    @property
    def broker_headers(self) -> Mapping[str, Any]:
        """The broker's own notes."""
        return wire.broker_headers(self._read().headers)

    async def ack(self) -> bool:
        """Done."""
        return await self._settle(requeue=False)

    async def requeue(self) -> bool:
        """Back to the broker, by nack: on 4.3 that does not count towards the delivery limit, as a reject would."""
        return await self._settle(requeue=True)

    async def _settle(self, *, requeue: bool) -> bool:
        if not self.channel.alive:
            return False
        if self._settled:
            return not self.channel.cancelled
        self._settled = True
        channel, tag = self.channel.channel, self._tag
        try:
            # The queue in front of a connection that is going takes ten frames, and nobody takes them out.
            with map_errors("settling a delivery"):
                async with asyncio.timeout(CLOSE_TIMEOUT_SECONDS):
                    await (
                        channel.basic_nack(tag, requeue=True, wait=False)
                        if requeue
                        else channel.basic_ack(tag, wait=False)
                    )
        except BusError:
            return False
        finally:
            self.channel.settled()
        return not self.channel.cancelled
