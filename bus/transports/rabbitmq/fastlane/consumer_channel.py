"""A channel of the fast lane that consumes: deliveries as they come, acks that go out together, replies on the same channel."""

import asyncio
import time
from collections.abc import Callable, Mapping
from typing import Any

from bus.errors import ConnectionLost
from bus.messaging.envelope import Envelope, MessageRole
from bus.messaging.ports.transport import Delivery
from bus.messaging.topology.addresses import Address
from bus.transports.rabbitmq.amqp.frames import ack_frame, nack_frame
from bus.transports.rabbitmq.amqp.properties import message_id_of, read_envelope, read_headers
from bus.transports.rabbitmq.fastlane.confirm_channel import encode_publish
from bus.transports.rabbitmq.fastlane.protocol import FastLaneProtocol
from bus.transports.wire_format import broker_headers

__all__ = ["ConsumerChannel", "FastLaneDelivery"]

MULTIPLE_ACK, SINGLE_ACK = True, False


class FastLaneDelivery:
    """A message as it was delivered on one channel of the lane."""

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
        """The message; `Delivery.envelope` says more."""
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
        """The broker's own notes; decoded at each call, since hardly anybody asks."""
        return broker_headers(read_headers(self._properties))

    async def ack(self) -> bool:
        """Done."""
        if not self.channel.alive:
            return False
        if not self._settled:
            self._settled = True
            self.channel.ack(self._tag)
        return not self.channel.cancelled

    async def requeue(self) -> bool:
        """Back to the broker, by nack: on 4.3 that does not count towards the delivery limit, as a reject would."""
        if not self.channel.alive:
            return False
        if not self._settled:
            self._settled = True
            return self.channel.nack(self._tag)
        return True


class ConsumerChannel:
    """One consumer's channel; a `Claimant`. Once it has ended nothing is acked: its tags mean nothing on the next channel."""

    def __init__(  # noqa: PLR0913 - what a delivery needs to know
        self,
        lane: FastLaneProtocol,
        number: int,
        *,
        queue: str,
        role: MessageRole,
        on_delivery: Callable[[Delivery], None],
        on_returned: Callable[[str, str], None],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.lane = lane
        self.queue = queue
        self.role = role
        self.clock = clock
        self._number = number
        self._on_delivery = on_delivery
        self._on_returned = on_returned
        self._last = 0
        """The newest delivery's tag."""
        self._known = 0
        """The newest that `_unfinished` has looked at."""
        self._open: dict[int, bool] = {}
        """Deliveries that the broker has not been told of, oldest first; at most as many as it lets be under way."""
        self._done: list[int] = []
        self._dirty = False
        self.ended: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.alive = True
        self.cancelled = False
        self.idle = asyncio.Event()
        lane.attach(number, self)

    # --- acks ------------------------------------------------------------------------------------------------------

    def ack(self, tag: int) -> None:
        """Written with this turn's other frames, and together with its neighbours where they are done as well."""
        self._done.append(tag)
        if not self._dirty:
            self._dirty = True
            self.lane.schedule(self)

    def nack(self, tag: int) -> bool:
        """Back to the broker; false where it does not hear of it, which has the same effect."""
        if self._unfinished().pop(tag, False):
            try:
                self.lane.send(nack_frame(self._number, tag))
            except ConnectionLost:
                return False
            self._look()
        return True

    @property
    def has_unsettled(self) -> bool:
        """Whether something that came is not settled, or its ack not written."""
        return bool(self._unfinished())

    def _look(self) -> None:
        if self.cancelled and not self._open:
            self.idle.set()

    def _unfinished(self) -> dict[int, bool]:
        if self._known < self._last:
            self._open.update(dict.fromkeys(range(self._known + 1, self._last + 1), True))
            self._known = self._last
        return self._open

    def frames(self) -> list[bytes]:
        """The acks that are due: one for all below the oldest that is not done, and one for each beyond it."""
        self._dirty = False
        done, self._done = self._done, []
        if not self.alive:
            return []
        unfinished = self._unfinished()
        settled = [tag for tag in done if unfinished.pop(tag, False)]
        self._look()
        oldest = next(iter(unfinished), self._last + 1)
        covered = max((tag for tag in settled if tag < oldest), default=0)
        frames = [ack_frame(self._number, covered, multiple=True)] if covered else []
        frames += [ack_frame(self._number, tag, multiple=False) for tag in settled if tag > oldest]
        return frames

    # --- replies ---------------------------------------------------------------------------------------------------

    def publish(self, envelope: Envelope, address: Address) -> None:
        """Without confirm, before the acks of this turn; one that no queue takes is told to `on_returned`."""
        if not self.alive:
            raise ConnectionLost("not sent: the channel was closed")
        self.lane.send(encode_publish(self.lane, self._number, envelope, address))

    # --- the claimant ----------------------------------------------------------------------------------------------

    def on_deliver(self, tag: int, properties: bytes, body: bytes, *, redelivered: bool) -> None:
        """A message."""
        self._last = tag
        self._on_delivery(FastLaneDelivery(self, tag, properties, body, redelivered=redelivered))

    async def take(self, message: object) -> None:
        """From aiormq, which sees no delivery of this channel."""

    def on_confirm(self, tag: int, *, multiple: bool, ok: bool) -> None:
        """Nothing is confirmed here."""

    def on_return(self, reason: str, exchange: str, routing_key: str, properties: bytes) -> None:  # noqa: ARG002 - the id is enough
        """A reply whose caller is gone, or a request that nobody serves."""
        self._on_returned(message_id_of(properties), reason)

    def on_cancel(self) -> None:
        """The broker has ended the consumer. What was delivered can still be acked, until the channel is closed."""
        self.cancelled = True
        self.end("the broker cancelled it")

    def on_close(self, why: str) -> None:
        """Nothing may be written any more."""
        self.alive = False
        self._done.clear()
        self._open.clear()
        self.end(why)

    def end(self, why: str) -> None:
        """Who watches consumes anew."""
        if not self.ended.done():
            self.ended.set_result(why)

    def release(self) -> None:
        """Give the channel back to aiormq, which is about to close it."""
        self.lane.detach(self._number, self)
        self.on_close("closed")
