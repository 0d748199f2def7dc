"""A channel that moves messages from one queue to another queue. It keeps the message order.

The channel publishes a copy of each message. When the broker confirms the copy, the channel acks
the original. If the process is killed before the ack, the broker redelivers the original, although
its copy can already be in the other queue. So no message is lost, but a message can be copied
twice. For this reason, the copy of a redelivered message has the header `redelivered`.
"""

import asyncio
import secrets
from collections import deque
from collections.abc import Callable
from itertools import takewhile

from bus.errors import BusError, ConnectionLost, FailedPrecondition, ResourceExhausted, Unavailable
from bus.messaging.body_limit import UNLIMITED_BYTES
from bus.transports.rabbitmq.amqp.frames import ack_frame, publish_frames, publish_method
from bus.transports.rabbitmq.amqp.raw_properties import CopyOptions, copy_properties
from bus.transports.rabbitmq.fastlane.protocol import FastLaneProtocol

__all__ = ["ShovelChannel", "fresh_tag"]

HEADER_OVERHEAD = 32
"""Bytes of a header frame that are not properties. The value is rounded up."""


def fresh_tag() -> str:
    """Return a new consumer tag. RabbitMQ 4.3 closes a connection that uses a tag twice."""
    return f"trunkline-moving-{secrets.token_hex(6)}"


class ShovelChannel:
    """A `ChannelHandler` that consumes one queue and publishes to another queue with confirms."""

    max_body_bytes = UNLIMITED_BYTES

    def __init__(
        self,
        lane: FastLaneProtocol,
        number: int,
        *,
        target: str,
        carriage: CopyOptions,
        on_moved: Callable[[], None],
    ) -> None:
        """Attach to the channel.

        Args:
            lane: Connection of the channel.
            number: Number of the channel.
            target: Queue that receives the copies.
            carriage: Options of the copies.
            on_moved: Called after each ack of original messages.
        """
        self._lane = lane
        self._number = number
        self._method = publish_method("", target, mandatory=True)
        self._target = target
        self._carriage = carriage
        self._on_moved = on_moved
        self._sent = 0
        self._unconfirmed: dict[int, int] = {}
        """Delivery tags of the original messages, by the publish number of the unconfirmed copy."""
        self._unacked: deque[int] = deque()
        self._confirmed: set[int] = set()
        self.moved = 0
        self.again = 0
        """Number of copied messages that were redelivered. Each can have an earlier copy."""
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        # `check` raises the error. If `check` is not called, asyncio would log that the error was
        # never read. For this reason, the callback reads the error.
        self.ended.add_done_callback(lambda ended: ended.cancelled() or ended.exception())
        lane.attach(number, self)

    @property
    def in_flight(self) -> int:
        """Number of messages whose copy was sent, but whose original is not acked yet."""
        return len(self._unacked)

    def check(self) -> None:
        """If the channel has ended, raise the error that ended it."""
        if self.ended.done():
            self.ended.result()

    async def take(self, message: object) -> None:
        """Ignore the message. aiormq does not call this method, because the fast lane is in use."""

    def release(self) -> None:
        """Stop handling the channel's frames. Call this before aiormq closes the channel.

        When aiormq closes the channel, the broker requeues the messages in flight.
        """
        self._lane.detach(self._number, self)
        self._end(Unavailable("the channel was closed"))

    def _end(self, error: BusError) -> None:
        if not self.ended.done():
            self.ended.set_exception(error)

    # --- Channel handler ---

    def on_deliver(
        self,
        tag: int,
        properties: bytes,
        body: bytes,
        *,
        redelivered: bool,
        unread: int = 0,  # noqa: ARG002 - the channel keeps every body
    ) -> None:
        """Copy a message to the target queue."""
        if self.ended.done():
            return
        copy = copy_properties(properties, self._carriage, redelivered=redelivered)
        if len(copy) > self._lane.frame_max - HEADER_OVERHEAD:
            # With the header `redelivered`, the properties do not fit into a frame. Omit this
            # header.
            copy = copy_properties(properties, self._carriage, redelivered=False)
        if not self._send(
            publish_frames(self._number, self._method, copy, body, self._lane.frame_max)
        ):
            return
        self._sent += 1
        self._unconfirmed[self._sent] = tag
        self._unacked.append(tag)
        self.again += redelivered

    def on_confirm(self, tag: int, *, multiple: bool, ok: bool) -> None:
        """Ack the originals of the copies that the broker has confirmed."""
        if not ok:
            self._end(
                ResourceExhausted(
                    f"{self._target} rejects messages (basic.nack). Check whether it is full."
                )
            )
        if self.ended.done():
            return
        numbers = (
            list(takewhile(lambda number: number <= tag, self._unconfirmed)) if multiple else [tag]
        )
        self._confirmed.update(
            self._unconfirmed.pop(number) for number in numbers if number in self._unconfirmed
        )
        last = 0
        while self._unacked and self._unacked[0] in self._confirmed:
            last = self._unacked.popleft()
            self._confirmed.remove(last)
            self.moved += 1
        if last:
            self._send(ack_frame(self._number, last, multiple=True))
            self._on_moved()

    def _send(self, frames: bytes) -> bool:
        """Write frames. If the connection is lost, return False instead of raising an error."""
        try:
            self._lane.send(frames)
        except ConnectionLost as error:
            self._end(error)
            return False
        return True

    def on_return(
        self,
        reason: str,
        exchange: str,  # noqa: ARG002 - the channel publishes to one address
        routing_key: str,  # noqa: ARG002 - as above
        properties: bytes,  # noqa: ARG002 - as above
    ) -> None:
        """End the move, because the target queue does not exist any more.

        The broker confirms a returned message, although no queue has stored it. So no original
        message is acked after a message was returned.
        """
        self._end(FailedPrecondition(f"{self._target} does not exist any more ({reason})"))

    def on_cancel(self) -> None:
        """End the move, because the source queue was deleted."""
        self._end(Unavailable("the source queue was deleted"))

    def on_close(self, why: str) -> None:
        """End the move, because the channel or the connection has ended."""
        self._end(Unavailable(why))
