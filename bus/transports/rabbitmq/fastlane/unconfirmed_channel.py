"""A channel of the fast lane that publishes without confirms: for requests, whose reply is one."""

import asyncio
from collections import deque
from collections.abc import Callable

from bus.errors import BusError, Unavailable
from bus.messaging.envelope import Envelope
from bus.messaging.ports.transport import PublishOutcome
from bus.messaging.topology.addresses import Address
from bus.transports.rabbitmq.amqp.access_refused import ChannelClosure
from bus.transports.rabbitmq.amqp.properties import message_id_of
from bus.transports.rabbitmq.fastlane.confirm_channel import ACCEPTED, encode_publish
from bus.transports.rabbitmq.fastlane.confirm_watchdog import ConfirmStats
from bus.transports.rabbitmq.fastlane.frame_reader import CLOSED_BY_BROKER
from bus.transports.rabbitmq.fastlane.protocol import FastLaneProtocol

__all__ = ["UnconfirmedChannel"]

MAX_REMEMBERED_PUBLISHES = 4096
"""Publishes without confirm that are remembered, by their ids, for when the broker closes their channel: more than are on their way."""


class UnconfirmedChannel:
    """Publishes without confirms; a `Claimant` of its channel.

    What no queue takes is told to `on_returned` by its id, and what the broker drops with the channel to `on_failed`.
    """

    window_exhausted = awaiting_confirms = False

    def __init__(
        self,
        lane: FastLaneProtocol,
        number: int,
        *,
        on_returned: Callable[[str, str], None],
        on_failed: Callable[[str, BusError], None],
    ) -> None:
        self.lane = lane
        self._number = number
        self._on_returned = on_returned
        self._on_failed = on_failed
        self._written: deque[tuple[str, Address]] = deque(maxlen=MAX_REMEMBERED_PUBLISHES)
        self.confirm_stats = ConfirmStats()
        self.ended: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        lane.attach(number, self)

    @property
    def alive(self) -> bool:
        """Whether it can publish."""
        return not self.ended.done()

    async def publish(self, envelope: Envelope, address: Address, ends: float) -> PublishOutcome:
        """Write it. `Unavailable`, surely not sent, where socket and broker take nothing by `ends` (loop time)."""
        frames = encode_publish(self.lane, self._number, envelope, address)
        if not self.lane.writable:
            try:
                async with asyncio.timeout_at(ends):
                    await self.lane.wait_writable()
            except TimeoutError:
                raise Unavailable("not sent: the broker takes no publishes now") from None
        if not self.alive:
            raise Unavailable("not sent: the channel was closed")
        self.lane.send(frames)
        self._written.append((envelope.id, address))
        return ACCEPTED

    def on_deliver(self, tag: int, properties: bytes, body: bytes, *, redelivered: bool) -> None:
        """Nothing is consumed here."""

    def on_confirm(self, tag: int, *, multiple: bool, ok: bool) -> None:
        """Nothing is confirmed here."""

    def on_return(self, reason: str, exchange: str, routing_key: str, properties: bytes) -> None:  # noqa: ARG002 - the id is enough
        """Nobody serves it."""
        self._on_returned(message_id_of(properties), reason)

    def on_cancel(self) -> None:
        """Nothing is consumed here."""

    def on_close(self, why: str) -> None:
        """Nothing may be written any more. What was written before all that may be the refused one was taken, and is answered."""
        if not self.alive:
            return
        self.ended.set_result(why)
        if why.startswith(
            CLOSED_BY_BROKER
        ):  # else the connection is gone, and all calls with it, or it is we who close
            ids, written = (
                [each for each, _ in self._written],
                [address for _, address in self._written],
            )
            begin = min(ChannelClosure(why, written).suspects, default=0)
            for message_id, fate in zip(
                ids[begin:], ChannelClosure(why, written[begin:]).fates(), strict=True
            ):
                self._on_failed(message_id, fate)

    def release(self) -> None:
        """Give the channel back to aiormq, which is about to close it."""
        self.lane.detach(self._number, self)
        self.on_close("closed")
