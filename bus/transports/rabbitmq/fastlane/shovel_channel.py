"""A channel that moves messages from one queue to another, in their order.

Each message is copied, then the copy is confirmed, and only then the original is acked.
If the process is killed in between, the message is in one of the queues or in both, never in none.
A redelivered message may be in both, and a header of its copy records that.
"""

import asyncio
import secrets
from collections import deque
from collections.abc import Callable
from itertools import takewhile

from bus.errors import BusError, ConnectionLost, FailedPrecondition, ResourceExhausted, Unavailable
from bus.transports.rabbitmq.amqp.frames import ack_frame, publish_frames, publish_method
from bus.transports.rabbitmq.amqp.raw_properties import CopyOptions, copy_properties
from bus.transports.rabbitmq.fastlane.protocol import FastLaneProtocol

__all__ = ["ShovelChannel", "fresh_tag"]

HEADER_OVERHEAD = 32
"""Bytes of a header frame besides the properties, rounded up."""


def fresh_tag() -> str:
    """Return an unused consumer tag: a reused one ends the connection on RabbitMQ 4.3."""
    return f"trunkline-moving-{secrets.token_hex(6)}"


class ShovelChannel:
    """A `ChannelHandler` that consumes one queue, and publishes to another with confirms."""

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
            target: Queue that the copies go to.
            carriage: Options of the copies.
            on_moved: Called after moved messages were acked.
        """
        self._lane = lane
        self._number = number
        self._method = publish_method("", target, mandatory=True)
        self._target = target
        self._carriage = carriage
        self._on_moved = on_moved
        self._sent = 0
        self._unconfirmed: dict[int, int] = {}
        """Delivery tag of each publish in flight, by the number of the publish."""
        self._unacked: deque[int] = deque()
        self._confirmed: set[int] = set()
        self.moved = 0
        self.again = 0
        """Number of copied messages that the broker had delivered before."""
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        # `check` raises the error. The callback reads it, so asyncio does not report it as unread.
        self.ended.add_done_callback(lambda ended: ended.cancelled() or ended.exception())
        lane.attach(number, self)

    @property
    def in_flight(self) -> int:
        """Number of messages that were copied and are not acked."""
        return len(self._unacked)

    def check(self) -> None:
        """Raise the error that ended the channel, if it has ended."""
        if self.ended.done():
            self.ended.result()

    async def take(self, message: object) -> None:
        """Ignore a delivery from aiormq, which receives none on this channel."""

    def release(self) -> None:
        """Detach from the channel, which aiormq is about to close.

        The broker then requeues the messages in flight.
        """
        self._lane.detach(self._number, self)
        self._end(Unavailable("the channel was closed"))

    def _end(self, error: BusError) -> None:
        if not self.ended.done():
            self.ended.set_exception(error)

    # --- Channel handler ---

    def on_deliver(self, tag: int, properties: bytes, body: bytes, *, redelivered: bool) -> None:
        """Copy a message to the target queue."""
        if self.ended.done():
            return
        copy = copy_properties(properties, self._carriage, redelivered=redelivered)
        if len(copy) > self._lane.frame_max - HEADER_OVERHEAD:
            # A copy without the header is better than a message that cannot be moved.
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
        """Write frames, and return False if the connection is lost: a handler must not raise."""
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

        The confirm that follows does not report this, so no original is acked after a return.
        """
        self._end(FailedPrecondition(f"{self._target} does not exist any more ({reason})"))

    def on_cancel(self) -> None:
        """End the move, because the source queue was deleted."""
        self._end(Unavailable("the source queue was deleted"))

    def on_close(self, why: str) -> None:
        """End the move: nothing more may be written."""
        self._end(Unavailable(why))
