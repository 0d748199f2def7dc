"""A channel of the fast lane with one consumer.

The channel writes acks in batches. It publishes the replies to the requests that it receives.
"""

import asyncio
import time
from collections.abc import Callable, Mapping
from typing import Any

from bus.errors import ConnectionLost
from bus.messaging.body_limit import without_body
from bus.messaging.envelope import Envelope
from bus.messaging.ports.transport import Delivery
from bus.messaging.topology.addresses import Address
from bus.messaging.topology.consumer_spec import ConsumerSpec
from bus.transports.rabbitmq.amqp.frames import (
    ack_frame,
    dead_letter_frame,
    nack_frame,
    reject_frame,
)
from bus.transports.rabbitmq.amqp.properties import message_id_of, read_envelope, read_headers
from bus.transports.rabbitmq.fastlane.confirm_channel import encode_publish
from bus.transports.rabbitmq.fastlane.protocol import FastLaneProtocol
from bus.transports.wire_format import ROLES, broker_headers

__all__ = ["ConsumerChannel", "FastLaneDelivery"]

MULTIPLE_ACK, SINGLE_ACK = True, False


class FastLaneDelivery:
    """One delivery of a message on a channel of the fast lane."""

    __slots__ = (
        "_body",
        "_envelope",
        "_properties",
        "_received",
        "_settled",
        "_tag",
        "_unread",
        "channel",
        "redelivered",
    )

    def __init__(
        self,
        channel: "ConsumerChannel",
        tag: int,
        properties: bytes,
        body: bytes,
        *,
        redelivered: bool,
        unread: int = 0,
    ) -> None:
        self.channel = channel
        self.redelivered = redelivered
        self._tag = tag
        self._properties = properties
        self._body = body
        self._unread = unread
        self._received = int(channel.clock() * 1000)
        self._envelope: Envelope | None = None
        self._settled = False

    @property
    def envelope(self) -> Envelope:
        """Decoded message, see `Delivery.envelope`."""
        if self._envelope is None:
            channel = self.channel
            self._envelope = read_envelope(
                self._properties,
                self._body,
                role=channel.role,
                queue=channel.queue,
                received=self._received,
            )
            if self._unread:
                self._envelope = without_body(self._envelope, self._unread, channel.max_body_bytes)
        return self._envelope

    @property
    def is_open(self) -> bool:
        """True until the channel has ended."""
        return self.channel.alive

    @property
    def broker_headers(self) -> Mapping[str, Any]:
        """Headers that the broker added. Each access decodes the headers again."""
        return broker_headers(read_headers(self._properties))

    async def ack(self) -> bool:
        """Ack the message. A second call has no effect.

        Returns:
            False if the channel has ended or the broker has cancelled the consumer. If the
            result is False, the broker can deliver the message again.
        """
        if not self.channel.alive:
            return False
        if not self._settled:
            self._settled = True
            self.channel.ack(self._tag)
        return not self.channel.cancelled

    async def requeue(self, *, counts: bool = False) -> bool:
        """Requeue the message with a nack, or with a reject if the requeue must count.

        On RabbitMQ 4.3 a nack does not count towards the delivery limit, but a reject does.

        Returns:
            False if the channel or connection has ended. When a channel ends, the
            broker requeues its unacked messages by itself.
        """
        if not self.channel.alive:
            return False
        if not self._settled:
            self._settled = True
            frame = reject_frame if counts else nack_frame
            return self.channel.give_back(self._tag, frame)
        return True

    async def reject(self) -> bool:
        """Reject the message, so that the broker dead-letters it; see `Delivery.reject`."""
        if not self.channel.alive:
            return False
        if not self._settled:
            self._settled = True
            return self.channel.give_back(self._tag, dead_letter_frame)
        return True


class ConsumerChannel:
    """A `ChannelHandler` with one consumer.

    After the channel has ended, its deliveries cannot be acked, because their delivery tags are not
    valid on another channel.
    """

    def __init__(
        self,
        lane: FastLaneProtocol,
        number: int,
        *,
        spec: ConsumerSpec,
        on_delivery: Callable[[Delivery], None],
        on_returned: Callable[[str, str], None],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.lane = lane
        self.queue = spec.queue.name
        self.role = ROLES[spec.queue.role]
        self.max_body_bytes = spec.max_body_bytes
        self.clock = clock
        self._number = number
        self._on_delivery = on_delivery
        self._on_returned = on_returned
        self._last_tag = 0
        """Delivery tag of the newest delivery."""
        self._last_recorded_tag = 0
        """Delivery tag of the newest delivery that `_record_unsettled` has added to `_open`."""
        self._open: dict[int, bool] = {}
        """Delivery tags of unsettled deliveries, oldest first.

        The prefetch limits the number of unsettled deliveries.
        """
        self._done: list[int] = []
        """Delivery tags that the next call of `frames` will ack."""
        self._dirty = False
        self.ended: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.alive = True
        self.cancelled = False
        self.idle = asyncio.Event()
        lane.attach(number, self)

    # --- Acks ---

    def ack(self, tag: int) -> None:
        """Collect an ack. It is written with the other frames of this turn of the event loop.

        One ack frame may cover several deliveries.
        """
        self._done.append(tag)
        if not self._dirty:
            self._dirty = True
            self.lane.schedule(self)

    def give_back(self, tag: int, frame: Callable[[int, int], bytes]) -> bool:
        """Return a delivery to the broker with a nack or a reject.

        Args:
            tag: Delivery tag.
            frame: Function that encodes the frame from the channel's number and the tag.

        Returns:
            False if the connection is lost. After the loss, the broker requeues the delivery by
            itself.
        """
        if self._record_unsettled().pop(tag, False):
            try:
                self.lane.send(frame(self._number, tag))
            except ConnectionLost:
                return False
            self._check_idle()
        return True

    @property
    def has_unsettled(self) -> bool:
        """True if a delivery is not settled, or if its ack is not written yet."""
        return bool(self._record_unsettled())

    def _check_idle(self) -> None:
        if self.cancelled and not self._open:
            self.idle.set()

    def _record_unsettled(self) -> dict[int, bool]:
        if self._last_recorded_tag < self._last_tag:
            self._open.update(
                dict.fromkeys(range(self._last_recorded_tag + 1, self._last_tag + 1), True)
            )
            self._last_recorded_tag = self._last_tag
        return self._open

    def frames(self) -> list[bytes]:
        """Return the frames of the collected acks.

        One ack frame covers all deliveries before the oldest unsettled delivery.
        Each settled delivery after the oldest unsettled delivery has a separate ack frame.
        """
        self._dirty = False
        done, self._done = self._done, []
        if not self.alive:
            return []
        unsettled = self._record_unsettled()
        settled = [tag for tag in done if unsettled.pop(tag, False)]
        self._check_idle()
        oldest = next(iter(unsettled), self._last_tag + 1)
        covered = max((tag for tag in settled if tag < oldest), default=0)
        frames = [ack_frame(self._number, covered, multiple=True)] if covered else []
        frames += [ack_frame(self._number, tag, multiple=False) for tag in settled if tag > oldest]
        return frames

    # --- Replies ---

    def publish(self, envelope: Envelope, address: Address) -> None:
        """Publish a message without a confirm.

        The message is written before the acks of this turn of the event loop.
        If the message is returned, `on_returned` receives the message id.

        Raises:
            ConnectionLost: The channel was closed, and the message was not sent.
            InvalidArgument: AMQP cannot encode the message, or the broker would reject its size.
        """
        if not self.alive:
            raise ConnectionLost("message not sent: the channel was closed")
        self.lane.send(encode_publish(self.lane, self._number, envelope, address))

    # --- Channel handler ---

    def on_deliver(
        self, tag: int, properties: bytes, body: bytes, *, redelivered: bool, unread: int = 0
    ) -> None:
        """Pass a delivery to the consumer."""
        self._last_tag = tag
        self._on_delivery(
            FastLaneDelivery(self, tag, properties, body, redelivered=redelivered, unread=unread)
        )

    async def take(self, message: object) -> None:
        """Ignore the message. aiormq does not call this method, because the fast lane is in use."""

    def on_confirm(self, tag: int, *, multiple: bool, ok: bool) -> None:
        """Ignore a confirm, because the channel is not in confirm mode."""

    def on_return(
        self,
        reason: str,
        exchange: str,  # noqa: ARG002 - the id identifies the message
        routing_key: str,  # noqa: ARG002 - as above
        properties: bytes,
    ) -> None:
        """Report a returned message, for example a reply to a caller that has ended."""
        self._on_returned(message_id_of(properties), reason)

    def on_cancel(self) -> None:
        """End the consumer, because the broker has cancelled it.

        Deliveries can still be acked until the channel is closed.
        """
        self.cancelled = True
        self.end("the broker cancelled the consumer")

    def on_close(self, why: str) -> None:
        """End the channel. After this call, nothing is written on the channel."""
        self.alive = False
        self._done.clear()
        self._open.clear()
        self.end(why)

    def end(self, why: str) -> None:
        """Report that the consumer has ended, so that the supervisor opens another channel."""
        if not self.ended.done():
            self.ended.set_result(why)

    def release(self) -> None:
        """Stop handling the channel's frames. Call this before aiormq closes the channel."""
        self.lane.detach(self._number, self)
        self.on_close("the channel was closed")
