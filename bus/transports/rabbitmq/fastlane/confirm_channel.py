"""A channel of the fast lane that publishes with confirms, and a window."""

import asyncio
import struct
from collections import OrderedDict
from dataclasses import dataclass
from functools import lru_cache, partial
from itertools import takewhile

from bus.errors import DeadlineExceeded, InvalidArgument, Unavailable
from bus.messaging.envelope import Envelope
from bus.messaging.ports.transport import Accepted, Nacked, PublishOutcome, Returned
from bus.messaging.timers import SharedTimer
from bus.messaging.topology.addresses import Address
from bus.transports.rabbitmq.amqp.access_refused import ChannelClosure
from bus.transports.rabbitmq.amqp.frames import publish_frames, publish_method
from bus.transports.rabbitmq.amqp.properties import message_id_of, write_properties
from bus.transports.rabbitmq.fastlane.confirm_watchdog import ConfirmStats
from bus.transports.rabbitmq.fastlane.protocol import FastLaneProtocol

__all__ = ["ACCEPTED", "MAX_BODY_BYTES", "ConfirmChannel", "encode_publish"]

MAX_BODY_BYTES = 16 * 1024 * 1024
"""Bytes; RabbitMQ 4's default `max_message_size`. A larger one would cost the channel, and all that is under way on it.
A copy of what a queue brought is not held to it: its broker takes more (3.13: 128 MiB), and it could never be dead-lettered."""

UNFIT = (struct.error, ValueError, IndexError)
"""What encoding raises: a number over 64 bits, a surrogate, a short string of over 255 bytes."""

ACCEPTED, NACKED = Accepted(), Nacked(reason="basic.nack")

# A service sends few types to few addresses.
method_of = lru_cache(maxsize=1024)(
    lambda address: publish_method(
        address.exchange, address.routing_key, mandatory=address.mandatory
    )
)


def encode_publish(
    lane: FastLaneProtocol, channel: int, envelope: Envelope, address: Address
) -> bytes:
    """The frames of one publish; `InvalidArgument` for what the broker or the protocol would not take."""
    if len(envelope.body) > MAX_BODY_BYTES and envelope.queue is None:
        raise InvalidArgument(
            f"the message has {len(envelope.body)} bytes, and {MAX_BODY_BYTES} is the most; store it and send a reference"
        )
    try:
        properties, method = write_properties(envelope, user=lane.user), method_of(address)
    except UNFIT as error:
        raise InvalidArgument(
            "an attribute, header or address is too long, or no text or number of AMQP's"
        ) from error
    if len(properties) > lane.frame_max - 32:
        raise InvalidArgument(
            f"the headers have {len(properties)} bytes, and have to fit a frame of {lane.frame_max}"
        )
    return publish_frames(channel, method, properties, envelope.body, lane.frame_max)


@dataclass(slots=True)
class PendingConfirm:
    """A publish that waits for its confirm."""

    future: "asyncio.Future[PublishOutcome]"
    id: str
    address: Address
    returned: str | None = None


class ConfirmChannel:
    """Publishes with confirms; a `Claimant` of its channel.

    A return belongs to the oldest publish under way with the same id, exchange and routing key: the broker tells
    returns at once and confirms together later, so that their order alone does not say which was meant, and an id alone
    does not either where two copies are under way. Two with one address are alike: one queue takes both or none.
    """

    def __init__(self, lane: FastLaneProtocol, number: int, *, window: int) -> None:
        self.lane = lane
        self._number = number
        self._window = window
        self._sent = 0
        self._pending: dict[int, PendingConfirm] = {}
        self._waiting: OrderedDict[asyncio.Future[None], None] = OrderedDict()
        self._granted = 0
        """Places in the window that are promised to publishes that have not run on yet."""
        self._deadlines = SharedTimer()
        self._loop = asyncio.get_running_loop()
        self.confirm_stats = ConfirmStats()
        self.ended: asyncio.Future[str] = self._loop.create_future()
        lane.attach(number, self)

    @property
    def alive(self) -> bool:
        """Whether it can publish."""
        return not self.ended.done()

    @property
    def awaiting_confirms(self) -> bool:
        """Whether the broker's word is waited for, and no full socket holds it up."""
        return bool(self._pending) and self.lane.writable

    @property
    def window_exhausted(self) -> bool:
        """Whether half of its window is taken by publishes whose callers have given up: a queue does not answer, and keeps out others."""
        return (
            self.lane.writable
            and 2 * sum(entry.future.done() for entry in self._pending.values()) >= self._window
        )

    async def publish(self, envelope: Envelope, address: Address, ends: float) -> PublishOutcome:
        """Publish, and what the broker says by `ends` (loop time); `Transport.send` says what is raised."""
        frames = encode_publish(self.lane, self._number, envelope, address)
        if self._full or not self.lane.writable:
            await self._room(ends)
        if not self.alive:
            raise Unavailable("not sent: the channel was closed")
        future: asyncio.Future[PublishOutcome] = self._loop.create_future()
        self.lane.send(frames)
        self._sent += 1  # only now: a number that was not written would shift all that follow
        self._pending[self._sent] = PendingConfirm(future, envelope.id, address)
        self._deadlines.add(self._loop, future, ends, partial(_late, future))
        try:
            return await future
        finally:
            self._deadlines.discard(self._loop, future)

    @property
    def _full(self) -> bool:
        return len(self._pending) + self._granted >= self._window

    async def _room(self, ends: float) -> None:
        """Wait for a place in the window, and for a broker and a socket that take more; the place is to be used at once."""
        try:
            async with asyncio.timeout_at(ends):
                await self._place()
                try:
                    while self.alive and not self.lane.writable:
                        await self.lane.wait_writable()
                except asyncio.CancelledError:
                    self._give_back()
                    raise
        except TimeoutError:
            raise Unavailable("not sent: the broker takes no publishes now") from None
        self._granted -= 1

    async def _place(self) -> None:
        if not self._full:
            self._granted += 1
            return
        place = self._loop.create_future()
        self._waiting[place] = None
        try:
            await place
        except asyncio.CancelledError:
            if (
                place.cancelled()
            ):  # it is still in the line, unless `_admit` has just passed over it
                self._waiting.pop(place, None)
            else:
                self._give_back()
            raise

    def _give_back(self) -> None:
        self._granted -= 1
        self._admit()

    def _admit(self) -> None:
        """Promise each free place to who has waited longest."""
        while self._waiting and not self._full:
            place, _ = self._waiting.popitem(last=False)
            if not place.done():
                self._granted += 1
                place.set_result(None)

    # --- the claimant ----------------------------------------------------------------------------------------------

    def on_deliver(self, tag: int, properties: bytes, body: bytes, *, redelivered: bool) -> None:
        """Nothing is consumed here."""

    def on_confirm(self, tag: int, *, multiple: bool, ok: bool) -> None:
        """The broker has, or has not, taken responsibility."""
        if ok:
            self.confirm_stats.accept()
        else:
            self.confirm_stats.refuse(self._loop.time())
        pending = self._pending
        if not multiple:
            entry = pending.pop(tag, None)
            if entry is not None:
                _settle(entry, ok=ok)
        else:
            for number in list(takewhile(lambda number: number <= tag, pending)):
                _settle(pending.pop(number), ok=ok)
        self._admit()

    def on_return(self, reason: str, exchange: str, routing_key: str, properties: bytes) -> None:
        """Remembered until the confirm that follows."""
        message_id = message_id_of(properties)
        for entry in self._pending.values():
            address = entry.address
            if entry.returned is not None or entry.id != message_id or not address.mandatory:
                continue
            if (address.exchange, address.routing_key) == (exchange, routing_key):
                entry.returned = reason
                return

    def on_cancel(self) -> None:
        """Nothing is consumed here."""

    def on_close(self, why: str) -> None:
        """Nobody waits any longer. What became of the publishes under way is unknown, unless the broker names what it refused."""
        if not self.alive:
            return
        self.ended.set_result(why)
        pending = [*self._pending.values()]
        for entry, fate in zip(
            pending, ChannelClosure(why, [entry.address for entry in pending]).fates(), strict=True
        ):
            if not entry.future.done():
                entry.future.set_exception(fate)
        self._pending.clear()
        while self._waiting:
            place, _ = self._waiting.popitem()
            if not place.done():
                self._granted += 1
                place.set_result(None)

    def release(self) -> None:
        """Give the channel back to aiormq, which is about to close it."""
        self.lane.detach(self._number, self)
        self.on_close("closed")


def _settle(entry: PendingConfirm, *, ok: bool) -> None:
    if entry.future.done():
        return
    if not ok:
        entry.future.set_result(NACKED)
    else:
        entry.future.set_result(
            ACCEPTED if entry.returned is None else Returned(reason=entry.returned)
        )


def _late(future: "asyncio.Future[PublishOutcome]") -> None:
    if not future.done():
        future.set_exception(
            DeadlineExceeded("no confirm within the deadline", maybe_executed=True)
        )
