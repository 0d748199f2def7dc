"""Messages from one queue to another, in their order: a copy, its confirm, and only then the ack of what was copied.

Killed anywhere in between, a message is in the one queue, in the other, or in both; never in none. One that is delivered again,
and so may be in both, says so in a header of its copy.
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

HEAD = 32
"""Bytes of a header frame beside the properties."""


def fresh_tag() -> str:
    """A consumer tag that was never used: one that is used again ends a connection on RabbitMQ 4.3."""
    return f"trunkline-moving-{secrets.token_hex(6)}"


class ShovelChannel:
    """A confirmed channel that consumes one queue and publishes into another; a `Claimant`."""

    def __init__(
        self,
        lane: FastLaneProtocol,
        number: int,
        *,
        target: str,
        carriage: CopyOptions,
        on_moved: Callable[[], None],
    ) -> None:
        """`on_moved` is called after the acks of messages that were moved."""
        self._lane = lane
        self._number = number
        self._method = publish_method("", target, mandatory=True)
        self._target = target
        self._carriage = carriage
        self._on_moved = on_moved
        self._sent = 0
        self._unconfirmed: dict[int, int] = {}
        """The delivery of each publish under way, both by their number on this channel."""
        self._unacked: deque[int] = deque()
        self._confirmed: set[int] = set()
        self.moved = 0
        self.again = 0
        """Of those that were copied, how many the broker had delivered before."""
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.ended.add_done_callback(
            lambda ended: ended.cancelled() or ended.exception()
        )  # asked for in `check`
        lane.attach(number, self)

    @property
    def in_flight(self) -> int:
        """Messages that are neither here nor there for certain."""
        return len(self._unacked)

    def check(self) -> None:
        """Raise why it ended, where it has."""
        if self.ended.done():
            self.ended.result()

    async def take(self, message: object) -> None:
        """From aiormq, which sees no delivery of this channel."""

    def release(self) -> None:
        """Give the channel back to aiormq, which is about to close it; what is under way goes back to its queue."""
        self._lane.detach(self._number, self)
        self._end(Unavailable("closed"))

    def _end(self, error: BusError) -> None:
        if not self.ended.done():
            self.ended.set_exception(error)

    # --- the claimant ----------------------------------------------------------------------------------------------

    def on_deliver(self, tag: int, properties: bytes, body: bytes, *, redelivered: bool) -> None:
        """A message to be moved."""
        if self.ended.done():
            return
        copy = copy_properties(properties, self._carriage, redelivered=redelivered)
        if len(copy) > self._lane.frame_max - HEAD:
            copy = copy_properties(
                properties, self._carriage, redelivered=False
            )  # rather unnoted than never moved
        if not self._send(
            publish_frames(self._number, self._method, copy, body, self._lane.frame_max)
        ):
            return
        self._sent += 1
        self._unconfirmed[self._sent] = tag
        self._unacked.append(tag)
        self.again += redelivered

    def on_confirm(self, tag: int, *, multiple: bool, ok: bool) -> None:
        """The broker has the copy: what was copied can go."""
        if not ok:
            self._end(
                ResourceExhausted(f"{self._target} takes no messages (basic.nack); is it full?")
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
        """Whether they are on their way; nothing of a claimant may raise."""
        try:
            self._lane.send(frames)
        except ConnectionLost as error:
            self._end(error)
            return False
        return True

    def on_return(self, reason: str, exchange: str, routing_key: str, properties: bytes) -> None:  # noqa: ARG002 - there is one address
        """The target is gone. The confirm that follows says nothing of it, so nothing is acked any more."""
        self._end(FailedPrecondition(f"{self._target} is gone ({reason})"))

    def on_cancel(self) -> None:
        """The queue that is emptied was deleted."""
        self._end(Unavailable("the queue that was being emptied is gone"))

    def on_close(self, why: str) -> None:
        """Nothing may be written any more."""
        self._end(Unavailable(why))
