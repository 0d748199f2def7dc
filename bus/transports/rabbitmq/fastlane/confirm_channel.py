"""A fast-lane channel that publishes with confirms. It limits the number of publishes in flight."""

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
from bus.transports.rabbitmq.amqp.properties import sender_and_id_of, write_properties
from bus.transports.rabbitmq.fastlane.confirm_watchdog import ConfirmStats
from bus.transports.rabbitmq.fastlane.protocol import FastLaneProtocol

__all__ = [
    "ACCEPTED",
    "BLOCKED",
    "UNCONFIRMED",
    "WINDOW_FULL",
    "ConfirmChannel",
    "encode_publish",
]

BLOCKED = (
    "message not sent: the broker accepts no publishes now. Check it for a memory or disk alarm."
)
"""Text of the error if the broker blocks publishers, or does not read from the connection."""
WINDOW_FULL = (
    "message not sent: too many publishes wait for a confirm. Publish more slowly, or raise "
    "BUS_PUBLISH_WINDOW."
)
"""Text of the error if the window has no free slot before the deadline."""
UNCONFIRMED = (
    "the broker did not confirm the message in time, and may have accepted it. Inspect the queue, "
    "or raise the timeout."
)
"""Text of the error if a sent message has no confirm before the deadline."""

UNFIT = (struct.error, ValueError, IndexError)
"""Errors that are raised when AMQP cannot encode a value.

Examples are a number over 64 bits, a surrogate, and a short string over 255 bytes.
"""

ACCEPTED, NACKED = Accepted(), Nacked(reason="basic.nack")

# A service publishes to few addresses, so a small cache is enough.
encode_method = lru_cache(maxsize=1024)(
    lambda address: publish_method(
        address.exchange, address.routing_key, mandatory=address.mandatory
    )
)


def encode_publish(
    lane: FastLaneProtocol, channel: int, envelope: Envelope, address: Address
) -> bytes:
    """Encode the frames of one publish.

    Raises:
        InvalidArgument: AMQP cannot encode the message.
    """
    try:
        properties, method = write_properties(envelope, user=lane.user), encode_method(address)
    except UNFIT as error:
        raise InvalidArgument(
            "an attribute, header or address of the message is too long for AMQP, or is not a "
            "valid text or number. Correct it."
        ) from error
    if len(properties) > lane.frame_max - 32:
        raise InvalidArgument(
            f"the headers have {len(properties)} bytes and must fit into a frame of "
            f"{lane.frame_max} bytes. Send fewer or shorter headers."
        )
    return publish_frames(channel, method, properties, envelope.body, lane.frame_max)


@dataclass(slots=True)
class PendingConfirm:
    """A publish that waits for its confirm."""

    future: "asyncio.Future[PublishOutcome]"
    source: str
    id: str
    address: Address
    size: int
    """Bytes of the body."""
    returned: str | None = None


class ConfirmChannel:
    """A `ChannelHandler` that publishes with confirms.

    The channel finds the publish of a returned message by sender, message id, exchange and routing
    key. The sender matters for copies: two senders can use the same message id.
    If several publishes match, the channel chooses the oldest publish. All matching publishes have
    the same outcome, because they are copies of one message with the same address.
    The message id alone does not identify the publish, because two copies of a message can be in
    flight. The order of frames does not identify the publish either: the broker returns a message
    immediately, but can confirm several publishes with one frame.
    """

    max_body_bytes = 0

    def __init__(self, lane: FastLaneProtocol, number: int, *, window: int) -> None:
        self.lane = lane
        self._number = number
        self._window = window
        self._sent = 0
        self._pending: dict[int, PendingConfirm] = {}
        self._waiting: OrderedDict[asyncio.Future[None], None] = OrderedDict()
        self._granted = 0
        """Number of slots that are granted to publishes, but are not used yet."""
        self._deadlines = SharedTimer()
        self._loop = asyncio.get_running_loop()
        self.confirm_stats = ConfirmStats()
        self.ended: asyncio.Future[str] = self._loop.create_future()
        lane.attach(number, self)

    @property
    def alive(self) -> bool:
        """True if the channel can publish."""
        return not self.ended.done()

    @property
    def awaiting_confirms(self) -> bool:
        """True if publishes wait for confirms, the socket is not full and there is no alarm."""
        return bool(self._pending) and self.lane.writable

    @property
    def window_exhausted(self) -> bool:
        """True if timed-out and cancelled publishes occupy at least half of the window.

        The cause is a queue that does not confirm its publishes. The unconfirmed publishes block
        publishes to other queues.
        """
        return (
            self.lane.writable
            and 2 * sum(entry.future.done() for entry in self._pending.values()) >= self._window
        )

    async def publish(self, envelope: Envelope, address: Address, ends: float) -> PublishOutcome:
        """Publish a message, and return its outcome.

        Args:
            envelope: Message to publish.
            address: Exchange and routing key.
            ends: Deadline on the event loop's clock.

        Raises:
            InvalidArgument: AMQP cannot encode the message, or the broker would reject its size.
            Unavailable: The message was not sent. Either the channel was closed, or no publish
                could be written before the deadline.
            DeadlineExceeded: The message was sent and not confirmed before the deadline.
            ConnectionLost: The connection or the channel ended before the confirm.
            PermissionDenied: The broker refused this message, or another message with the same
                address.
        """
        frames = encode_publish(self.lane, self._number, envelope, address)
        if self._full or not self.lane.writable:
            await self._wait_for_slot(ends)
        if not self.alive:
            raise Unavailable("message not sent: the channel was closed")
        future: asyncio.Future[PublishOutcome] = self._loop.create_future()
        self.lane.send(frames)
        # The broker counts only publishes that were written. If the number were increased before a
        # `send` that fails, the numbers of all later confirms would be wrong.
        self._sent += 1
        self._pending[self._sent] = PendingConfirm(
            future, envelope.source, envelope.id, address, len(envelope.body)
        )
        self._deadlines.add(self._loop, future, ends, partial(_expire, future))
        try:
            return await future
        finally:
            self._deadlines.discard(self._loop, future)

    @property
    def _full(self) -> bool:
        return len(self._pending) + self._granted >= self._window

    async def _wait_for_slot(self, ends: float) -> None:
        """Wait for a slot in the window. After that, wait until publishes can be written.

        The caller must use the slot before it awaits anything else.
        """
        has_slot = False
        try:
            async with asyncio.timeout_at(ends):
                await self._acquire_slot()
                has_slot = True
                try:
                    while self.alive and not self.lane.writable:
                        await self.lane.wait_writable()
                except asyncio.CancelledError:
                    self._release_slot()
                    raise
        except TimeoutError:
            # While the broker blocks publishers, the publishes in flight can occupy all slots.
            is_blocked = has_slot or not self.lane.writable
            raise Unavailable(BLOCKED if is_blocked else WINDOW_FULL) from None
        self._granted -= 1

    async def _acquire_slot(self) -> None:
        if not self._full:
            self._granted += 1
            return
        slot = self._loop.create_future()
        self._waiting[slot] = None
        try:
            await slot
        except asyncio.CancelledError:
            # If the slot is not granted yet, stop waiting for it. If it is granted, release it.
            if slot.cancelled():
                self._waiting.pop(slot, None)
            else:
                self._release_slot()
            raise

    def _release_slot(self) -> None:
        self._granted -= 1
        self._grant_slots()

    def _grant_slots(self) -> None:
        """Grant each free slot to the publish that has waited longest."""
        while self._waiting and not self._full:
            slot, _ = self._waiting.popitem(last=False)
            if not slot.done():
                self._granted += 1
                slot.set_result(None)

    # --- Channel handler ---

    def on_deliver(
        self, tag: int, properties: bytes, body: bytes, *, redelivered: bool, unread: int = 0
    ) -> None:
        """Ignore a delivery, because the channel has no consumer."""

    def on_confirm(self, tag: int, *, multiple: bool, ok: bool) -> None:
        """Settle the publishes that the broker has acked or nacked."""
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
        self._grant_slots()

    def on_return(self, reason: str, exchange: str, routing_key: str, properties: bytes) -> None:
        """Record that a message was returned. Its publish is settled when the confirm arrives."""
        returned = sender_and_id_of(properties)
        for entry in self._pending.values():
            address = entry.address
            if entry.returned is not None or not address.mandatory:
                continue
            if (entry.source, entry.id) != returned:
                continue
            if (address.exchange, address.routing_key) == (exchange, routing_key):
                entry.returned = reason
                return

    def on_cancel(self) -> None:
        """Ignore a cancel, because the channel has no consumer."""

    def on_close(self, why: str) -> None:
        """Fail all publishes in flight, and wake the publishes that wait for a slot.

        If the broker closed the channel because of one of these publishes, `ChannelClosure`
        determines the outcomes. Otherwise, the outcome of each publish in flight is unknown.
        """
        if not self.alive:
            return
        self.ended.set_result(why)
        pending = [*self._pending.values()]
        closure = ChannelClosure(
            why, [entry.address for entry in pending], [entry.size for entry in pending]
        )
        for entry, error in zip(pending, closure.fates(), strict=True):
            if not entry.future.done():
                entry.future.set_exception(error)
        self._pending.clear()
        while self._waiting:
            slot, _ = self._waiting.popitem()
            if not slot.done():
                self._granted += 1
                slot.set_result(None)

    def release(self) -> None:
        """Stop handling the channel's frames. Call this before aiormq closes the channel."""
        self.lane.detach(self._number, self)
        self.on_close("the channel was closed")


def _settle(entry: PendingConfirm, *, ok: bool) -> None:
    if entry.future.done():
        return
    if not ok:
        entry.future.set_result(NACKED)
    else:
        entry.future.set_result(
            ACCEPTED if entry.returned is None else Returned(reason=entry.returned)
        )


def _expire(future: "asyncio.Future[PublishOutcome]") -> None:
    if not future.done():
        future.set_exception(DeadlineExceeded(UNCONFIRMED, maybe_executed=True))
