"""A channel of the fast lane with one consumer.

Acks are batched, and replies go out on the same channel.
"""

import asyncio
import time
from collections.abc import Callable, Mapping
from typing import Any

from bus.errors import ConnectionLost
from bus.messaging.envelope import Envelope
from bus.messaging.ports.transport import Delivery
from bus.messaging.topology.addresses import Address
from bus.messaging.topology.model import Queue
from bus.transports.rabbitmq.amqp.frames import ack_frame, nack_frame
from bus.transports.rabbitmq.amqp.properties import message_id_of, read_envelope, read_headers
from bus.transports.rabbitmq.fastlane.confirm_channel import encode_publish
from bus.transports.rabbitmq.fastlane.protocol import FastLaneProtocol
from bus.transports.wire_format import ROLES, broker_headers

__all__ = ["ConsumerChannel", "FastLaneDelivery"]

MULTIPLE_ACK, SINGLE_ACK = True, False


class FastLaneDelivery:
    """A message that was delivered on one channel of the fast lane."""

    __slots__ = (
        "_body",
        "_envelope",
        "_properties",
        "_received",
        "_settled",
        "_tag",
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
    ) -> None:
        self.channel = channel
        self.redelivered = redelivered
        self._tag = tag
        self._properties = properties
        self._body = body
        self._received = int(channel.clock() * 1000)
        self._envelope: Envelope | None = None
        self._settled = False

    @property
    def envelope(self) -> Envelope:
        """Message as an envelope, see `Delivery.envelope`."""
        if self._envelope is None:
            channel = self.channel
            self._envelope = read_envelope(
                self._properties,
                self._body,
                role=channel.role,
                queue=channel.queue,
                received=self._received,
            )
        return self._envelope

    @property
    def broker_headers(self) -> Mapping[str, Any]:
        """Headers that the broker added; decoded at each access, because few callers read them."""
        return broker_headers(read_headers(self._properties))

    async def ack(self) -> bool:
        """Ack the message; a second call has no effect.

        Returns:
            False if the broker may deliver the message again: the channel has ended, or the broker
            cancelled the consumer.
        """
        if not self.channel.alive:
            return False
        if not self._settled:
            self._settled = True
            self.channel.ack(self._tag)
        return not self.channel.cancelled

    async def requeue(self) -> bool:
        """Requeue the message by a nack.

        On RabbitMQ 4.3 a nack does not count towards the delivery limit, but a reject does.

        Returns:
            False if the channel or connection has ended, so that the broker requeues the message.
        """
        if not self.channel.alive:
            return False
        if not self._settled:
            self._settled = True
            return self.channel.nack(self._tag)
        return True


class ConsumerChannel:
    """A `ChannelHandler` with one consumer.

    Nothing is acked after the channel has ended: its tags are not valid on the next channel.
    """

    def __init__(
        self,
        lane: FastLaneProtocol,
        number: int,
        *,
        queue: Queue,
        on_delivery: Callable[[Delivery], None],
        on_returned: Callable[[str, str], None],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.lane = lane
        self.queue = queue.name
        self.role = ROLES[queue.role]
        self.clock = clock
        self._number = number
        self._on_delivery = on_delivery
        self._on_returned = on_returned
        self._last_tag = 0
        """Tag of the newest delivery."""
        self._last_recorded_tag = 0
        """Tag of the newest delivery that `_record_unsettled` has recorded."""
        self._open: dict[int, bool] = {}
        """Tags of recorded deliveries that are not settled at the broker, oldest first.

        The prefetch limits their number.
        """
        self._done: list[int] = []
        """Tags of deliveries that the next `frames` acks."""
        self._dirty = False
        self.ended: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.alive = True
        self.cancelled = False
        self.idle = asyncio.Event()
        lane.attach(number, self)

    # --- Acks ---

    def ack(self, tag: int) -> None:
        """Collect an ack, which is written with the other frames of this turn.

        One ack may cover several deliveries.
        """
        self._done.append(tag)
        if not self._dirty:
            self._dirty = True
            self.lane.schedule(self)

    def nack(self, tag: int) -> bool:
        """Requeue a delivery.

        Returns:
            False if the connection is lost, so that the broker requeues the delivery itself.
        """
        if self._record_unsettled().pop(tag, False):
            try:
                self.lane.send(nack_frame(self._number, tag))
            except ConnectionLost:
                return False
            self._check_idle()
        return True

    @property
    def has_unsettled(self) -> bool:
        """True if a delivery is not settled, or its ack is not written."""
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
        """Return the acks that are due.

        One ack covers all deliveries below the oldest unsettled one.
        Each settled delivery above that has its own ack.
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
        """Publish without confirm, before the acks of this turn.

        `on_returned` receives the id of a message that no queue takes.

        Raises:
            ConnectionLost: The channel was closed, and the message was not sent.
            InvalidArgument: AMQP cannot encode the message, or the broker would reject its size.
        """
        if not self.alive:
            raise ConnectionLost("message not sent: the channel was closed")
        self.lane.send(encode_publish(self.lane, self._number, envelope, address))

    # --- Channel handler ---

    def on_deliver(self, tag: int, properties: bytes, body: bytes, *, redelivered: bool) -> None:
        """Pass a delivery to the consumer."""
        self._last_tag = tag
        self._on_delivery(FastLaneDelivery(self, tag, properties, body, redelivered=redelivered))

    async def take(self, message: object) -> None:
        """Ignore a delivery from aiormq, which receives none on this channel."""

    def on_confirm(self, tag: int, *, multiple: bool, ok: bool) -> None:
        """Ignore a confirm: the channel requests none."""

    def on_return(
        self,
        reason: str,
        exchange: str,  # noqa: ARG002 - the id identifies the message
        routing_key: str,  # noqa: ARG002 - as above
        properties: bytes,
    ) -> None:
        """Report a reply without a caller, or a request without a service."""
        self._on_returned(message_id_of(properties), reason)

    def on_cancel(self) -> None:
        """End the consumer, which the broker has cancelled.

        Deliveries can still be acked until the channel is closed.
        """
        self.cancelled = True
        self.end("the broker cancelled the consumer")

    def on_close(self, why: str) -> None:
        """End the channel: nothing more may be written on it."""
        self.alive = False
        self._done.clear()
        self._open.clear()
        self.end(why)

    def end(self, why: str) -> None:
        """Report the end of the consumer, so that its supervisor starts another one."""
        if not self.ended.done():
            self.ended.set_result(why)

    def release(self) -> None:
        """Detach from the channel, which aiormq is about to close."""
        self.lane.detach(self._number, self)
        self.on_close("the channel was closed")
