"""Channels that use only aiormq, without the fast lane (`BUS_FASTLANE=off`).

They behave like the channels of the fast lane. Operators can switch to them if the fast lane fails,
or to compare the two.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
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
from bus.messaging.body_limit import UNLIMITED_BYTES, without_body
from bus.messaging.envelope import Envelope
from bus.messaging.ports.transport import Accepted, Delivery, Nacked, PublishOutcome, Returned
from bus.messaging.topology.addresses import Address
from bus.messaging.topology.consumer_spec import ConsumerSpec
from bus.transports import wire_format as wire
from bus.transports.rabbitmq.amqp.access_refused import is_access_refused
from bus.transports.rabbitmq.amqp.frames import publish_method
from bus.transports.rabbitmq.amqp.oversized_publish import parse_too_large, too_large_for_broker
from bus.transports.rabbitmq.amqp.pamqp_codec import from_message, to_properties
from bus.transports.rabbitmq.body_limit import drop_large_bodies
from bus.transports.rabbitmq.exceptions import map_errors
from bus.transports.rabbitmq.fastlane.confirm_channel import (
    BLOCKED,
    UNCONFIRMED,
    UNFIT,
    WINDOW_FULL,
)
from bus.transports.rabbitmq.fastlane.confirm_watchdog import ConfirmStats
from bus.transports.rabbitmq.open_connection import CLOSE_TIMEOUT_SECONDS, OpenConnection
from bus.transports.wire_format import ROLES

__all__ = ["AiormqConsumerChannel", "AiormqDelivery", "AiormqPublisherChannel"]

HEADER_OVERHEAD_BYTES = 24
"""Size of a header frame in bytes without the properties, rounded up."""
COPY_IN_FLIGHT = (
    "message not sent: a copy with the same message id still waits for its confirm. "
    "Send the message again after the copy has ended."
)
"""Text of the error if a copy of the message was in flight until the deadline."""


class AiormqPublisherChannel:
    """A channel that publishes with confirms.

    The channel never has two messages with the same id in flight. The reason is that aiormq uses
    only the message id to find the publish that belongs to a returned message.
    """

    window_exhausted = False  # never True: a publish releases its slot even if it times out

    def __init__(self, link: OpenConnection, channel: Channel, *, window: int) -> None:
        self._link = link
        self._channel = channel
        self._window = asyncio.Semaphore(window)
        self._in_flight: dict[str, asyncio.Event] = {}
        self.confirm_stats = ConfirmStats()
        self._newest: dict[Address, str] = {}
        """For each address, the message id of the newest publish, if that publish is in flight."""
        self.ended: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    @property
    def alive(self) -> bool:
        """True if the channel can publish."""
        return not self.ended.done() and not self._channel.is_closed

    @property
    def awaiting_confirms(self) -> bool:
        """True if a publish waits for its confirm."""
        return bool(self._in_flight)

    async def publish(self, envelope: Envelope, address: Address, ends: float) -> PublishOutcome:
        """Publish a message and wait for the broker's outcome.

        Args:
            envelope: The message.
            address: The exchange and the routing key.
            ends: The time limit, in loop time.

        Returns:
            The outcome that the broker reported.

        Raises:
            BusError: One of the errors of `Transport.send`.
        """
        async with self._slot(envelope.id, ends):
            self._newest[address] = envelope.id
            try:
                outcome = await publish_on(self._channel, envelope, address, ends)
            except PermissionDenied as error:
                # The broker's error names an address, but not a message. The broker refused one of
                # the publishes to this address and dropped all later publishes. So the newest
                # publish to this address was certainly not accepted. The outcome of earlier
                # publishes is unknown.
                if self._newest.get(address) != envelope.id:
                    raise
                raise PermissionDenied(f"message not sent: {error}") from None
            finally:
                if self._newest.get(address) == envelope.id:
                    del self._newest[address]
        if isinstance(outcome, Nacked):
            self.confirm_stats.refuse(asyncio.get_running_loop().time())
        else:
            self.confirm_stats.accept()
        return outcome

    @asynccontextmanager
    async def _slot(self, message_id: str, ends: float) -> AsyncIterator[None]:
        """Hold a slot of the publish window during the `async with` block.

        Before the block starts, `_wait_sendable` waits until the message can be sent.
        """
        try:
            async with asyncio.timeout_at(ends):
                await self._window.acquire()
        except TimeoutError:
            raise Unavailable(WINDOW_FULL) from None
        try:
            await self._wait_sendable(message_id, ends)
            done = self._in_flight[message_id] = asyncio.Event()
            try:
                yield
            finally:
                del self._in_flight[message_id]
                done.set()
        finally:
            self._window.release()

    async def _wait_sendable(self, message_id: str, ends: float) -> None:
        """Wait until the broker accepts publishes and no copy of the message is in flight."""
        copy = None
        try:
            async with asyncio.timeout_at(ends):
                await self._link.wait_unblocked()
                while (copy := self._in_flight.get(message_id)) is not None:
                    await copy.wait()
        except TimeoutError:
            raise Unavailable(BLOCKED if copy is None else COPY_IN_FLIGHT) from None

    def release(self) -> None:
        """Stop using the channel. Call this before the channel is closed."""
        if not self.ended.done():
            self.ended.set_result("closed")


async def publish_on(
    channel: Channel, envelope: Envelope, address: Address, ends: float
) -> PublishOutcome:
    """Publish on a channel with confirms, and wait for the broker's outcome.

    Args:
        channel: A channel in confirm mode.
        envelope: The message.
        address: The exchange and the routing key.
        ends: The time limit, in loop time.

    Returns:
        The outcome that the broker reported.

    Raises:
        InvalidArgument: The message is too large for the broker, or AMQP cannot encode it.
        PermissionDenied: The broker refused this publish, or another publish to the same address.
        DeadlineExceeded: The time limit passed before the message was written, or before the
            confirm arrived.
        ConnectionLost: The channel or the connection was closed before the confirm.
    """
    properties = check_encodable(
        to_properties(wire.encode(envelope), user=_user_of(channel)),
        address,
        channel.max_content_size,
    )
    timeout = ends - asyncio.get_running_loop().time()
    if timeout <= 0:
        raise DeadlineExceeded(
            "the deadline passed before the message was sent. Raise the timeout."
        )
    try:
        with map_errors("waiting for the confirm"):
            return await _publish_confirmed(channel, envelope.body, properties, address, timeout)
    except DeadlineExceeded:
        raise
    except BusError as error:
        too_large = parse_too_large(str(error))
        if too_large is not None and too_large[0] == len(envelope.body):
            raise too_large_for_broker(*too_large) from None
        if is_access_refused(str(error), address):
            raise PermissionDenied(str(error), maybe_executed=True) from None
        sent = not isinstance(error, NotSent)
        raise ConnectionLost(str(error), maybe_executed=sent) from None


def check_encodable(
    properties: Basic.Properties, address: Address, max_bytes: int
) -> Basic.Properties:
    """Return the properties if AMQP can encode them and the broker accepts their size.

    Without this check, aiormq would raise an unclear exception if AMQP cannot encode a value. If
    the properties are too large, the broker would close the connection.

    Args:
        properties: The message's properties.
        address: The exchange and the routing key.
        max_bytes: Maximum bytes of a frame. The value is negative if the broker sets no limit.

    Raises:
        InvalidArgument: AMQP cannot encode a value, or the properties do not fit into one frame.
    """
    try:
        publish_method(address.exchange, address.routing_key, mandatory=address.mandatory)
        size = len(properties.marshal())
    except (*UNFIT, TypeError) as error:  # pamqp raises TypeError for a wrong type
        raise InvalidArgument(
            "an attribute, header or address of the message is too long for AMQP, or is not a"
            " valid text or number. Correct it."
        ) from error
    if 0 < max_bytes < size + HEADER_OVERHEAD_BYTES:
        raise InvalidArgument(
            f"the headers have {size} bytes and must fit into a frame of {max_bytes} bytes."
            " Send fewer or shorter headers."
        )
    return properties


def _user_of(channel: Channel) -> str | None:
    """Return the user name of the channel's connection."""
    # The abstract class has no attribute `url`, but its only implementation has it.
    return getattr(channel.connection, "url", URL()).user


class NotSent(Unavailable):
    """The error that reports an unsent message. The channel was closed before the publish."""


async def _publish_confirmed(
    channel: Channel, body: bytes, properties: Basic.Properties, address: Address, timeout: float
) -> PublishOutcome:
    """Publish, wait for the confirm, and map aiormq's result or error to an outcome."""
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
        raise NotSent("message not sent: the channel was closed") from None
    except TimeoutError:
        raise DeadlineExceeded(UNCONFIRMED, maybe_executed=True) from None
    return Accepted()


class AiormqConsumerChannel:
    """The channel of one consumer.

    After the channel has ended, its deliveries cannot be acked, because their delivery tags are not
    valid on another channel.
    """

    def __init__(
        self,
        channel: Channel,
        *,
        spec: ConsumerSpec,
        on_delivery: Callable[[Delivery], None],
        clock: Callable[[], float],
    ) -> None:
        self.channel = channel
        self.queue = spec.queue.name
        self.role = ROLES[spec.queue.role]
        self.max_body_bytes = spec.max_body_bytes
        self.clock = clock
        self._on_delivery = on_delivery
        self._unread: dict[int, int] = {}
        """Sizes of dropped bodies, by the delivery tag of a message that has not arrived yet."""
        self._unsettled = 0
        self._released = False
        self.cancelled = False
        self.idle = asyncio.Event()
        self.ended: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        channel.on_consumer_cancel_callbacks.add(self._cancelled)
        if spec.max_body_bytes < UNLIMITED_BYTES:
            drop_large_bodies(channel, lambda: self.max_body_bytes, self._unread.__setitem__)

    @property
    def alive(self) -> bool:
        """True if the deliveries of the channel can be settled."""
        return not self._released and not self.channel.is_closed

    @property
    def has_unsettled(self) -> bool:
        """True if a delivery of the channel is not settled."""
        return self._unsettled > 0

    def _cancelled(self, _frame: object) -> None:
        self.cancelled = True
        self.end("the broker cancelled the consumer")

    async def take(self, message: aiormq.abc.DeliveredMessage) -> None:
        """Receive a message from aiormq."""
        if message.delivery_tag is not None:
            self.deliver(
                message.delivery_tag,
                partial(from_message, message),
                redelivered=bool(message.redelivered),
            )

    def deliver(self, tag: int, read: Callable[[], wire.AmqpMessage], *, redelivered: bool) -> None:
        """Pass a message that arrived on this channel to the consumer.

        Args:
            tag: The delivery tag.
            read: Function that decodes the message. The delivery calls it only when the envelope or
                the headers of the delivery are read.
            redelivered: True if the broker delivered the message before.
        """
        self._unsettled += 1
        unread = self._unread.pop(tag, 0)
        self._on_delivery(AiormqDelivery(self, tag, read, redelivered=redelivered, unread=unread))

    def settled(self) -> None:
        """Record that a delivery was settled."""
        self._unsettled -= 1
        if self.cancelled and not self._unsettled:
            self.idle.set()

    async def publish(self, envelope: Envelope, address: Address, ends: float) -> PublishOutcome:
        """Publish a reply on the channel of its request. Call this before the request is acked.

        The channel must be in confirm mode. For the parameters and errors see `publish_on`.
        """
        return await publish_on(self.channel, envelope, address, ends)

    def end(self, why: str) -> None:
        """Report that the channel has ended. The supervised consumer opens another channel."""
        if not self.ended.done():
            self.ended.set_result(why)

    def release(self) -> None:
        """Stop using the channel. Call this before the channel is closed."""
        self._released = True
        self.end("closed")


class AiormqDelivery:
    """One delivery of a message on one channel."""

    def __init__(
        self,
        channel: AiormqConsumerChannel,
        tag: int,
        read: Callable[[], wire.AmqpMessage],
        *,
        redelivered: bool,
        unread: int = 0,
    ) -> None:
        self.channel = channel
        self.redelivered = redelivered
        self._tag = tag
        self._read = read
        self._unread = unread
        self._received = int(channel.clock() * 1000)
        self._settled = False

    @cached_property
    def envelope(self) -> Envelope:
        """The decoded message; see `Delivery.envelope`."""
        channel = self.channel
        envelope = wire.decode(
            self._read(), role=channel.role, queue=channel.queue, received=self._received
        )
        if not self._unread:
            return envelope
        return without_body(envelope, self._unread, channel.max_body_bytes)

    @property
    def is_open(self) -> bool:
        """True until the channel has ended."""
        return self.channel.alive

    @property
    def broker_headers(self) -> Mapping[str, Any]:
        """The headers that the broker added."""
        return wire.broker_headers(self._read().headers)

    async def ack(self) -> bool:
        """Ack the delivery; see `Delivery.ack`."""
        return await self._settle(lambda tag: self.channel.channel.basic_ack(tag, wait=False))

    async def requeue(self, *, counts: bool = False) -> bool:
        """Requeue the message with a nack, or with a reject if the requeue must count.

        On RabbitMQ 4.3 a nack does not count towards the delivery limit, but a reject does.
        """
        channel = self.channel.channel
        requeue = channel.basic_reject if counts else channel.basic_nack
        return await self._settle(lambda tag: requeue(tag, requeue=True, wait=False))

    async def reject(self) -> bool:
        """Reject the message, so that the broker dead-letters it; see `Delivery.reject`."""
        reject = self.channel.channel.basic_reject
        return await self._settle(lambda tag: reject(tag, requeue=False, wait=False))

    async def _settle(self, write: Callable[[int], Awaitable[None]]) -> bool:
        if not self.channel.alive:
            return False
        if self._settled:
            return not self.channel.cancelled
        self._settled = True
        try:
            # A connection that is being closed writes no frames, and aiormq queues at most ten
            # frames. Without this time limit, an ack or nack could wait without end.
            with map_errors("settling a delivery"):
                async with asyncio.timeout(CLOSE_TIMEOUT_SECONDS):
                    await write(self._tag)
        except BusError:
            return False
        finally:
            self.channel.settled()
        return not self.channel.cancelled
