"""A channel of the fast lane that publishes without confirms.

The bus publishes requests on it. A request needs no confirm, because the caller waits for the
reply.
"""

import asyncio
from collections import deque
from collections.abc import Callable

from bus.errors import BusError, Unavailable
from bus.messaging.envelope import Envelope
from bus.messaging.ports.transport import PublishOutcome
from bus.messaging.topology.addresses import Address
from bus.transports.rabbitmq.amqp.access_refused import ChannelClosure
from bus.transports.rabbitmq.amqp.properties import message_id_of
from bus.transports.rabbitmq.fastlane.confirm_channel import ACCEPTED, BLOCKED, encode_publish
from bus.transports.rabbitmq.fastlane.confirm_watchdog import ConfirmStats
from bus.transports.rabbitmq.fastlane.frame_reader import CLOSED_BY_BROKER
from bus.transports.rabbitmq.fastlane.protocol import FastLaneProtocol

__all__ = ["UnconfirmedChannel"]

MAX_REMEMBERED_PUBLISHES = 4096
"""Maximum number of remembered publishes.

The remembered publishes are needed if the broker closes the channel.
The maximum is larger than the number of publishes that the broker has not processed yet.
"""


class UnconfirmedChannel:
    """A `ChannelHandler` that publishes without confirms.

    `on_returned` receives the id of a returned message.
    `on_failed` receives the id of each message that the broker may have dropped when it closed the
    channel.
    """

    window_exhausted = awaiting_confirms = False
    max_body_bytes = 0

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
        self._written: deque[tuple[str, Address, int]] = deque(maxlen=MAX_REMEMBERED_PUBLISHES)
        self.confirm_stats = ConfirmStats()
        self.ended: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        lane.attach(number, self)

    @property
    def alive(self) -> bool:
        """True if the channel can publish."""
        return not self.ended.done()

    async def publish(self, envelope: Envelope, address: Address, ends: float) -> PublishOutcome:
        """Write a message.

        Args:
            envelope: Message to publish.
            address: Exchange and routing key.
            ends: Deadline on the event loop's clock.

        Raises:
            InvalidArgument: AMQP cannot encode the message, or the broker would reject its size.
            Unavailable: The message was not sent. Either the channel was closed, or no publish
                could be written before the deadline.
            ConnectionLost: The connection has ended, and the message was not sent.
        """
        frames = encode_publish(self.lane, self._number, envelope, address)
        if not self.lane.writable:
            try:
                async with asyncio.timeout_at(ends):
                    await self.lane.wait_writable()
            except TimeoutError:
                raise Unavailable(BLOCKED) from None
        if not self.alive:
            raise Unavailable("message not sent: the channel was closed")
        self.lane.send(frames)
        self._written.append((envelope.id, address, len(envelope.body)))
        return ACCEPTED

    def on_deliver(
        self, tag: int, properties: bytes, body: bytes, *, redelivered: bool, unread: int = 0
    ) -> None:
        """Ignore a delivery, because the channel has no consumer."""

    def on_confirm(self, tag: int, *, multiple: bool, ok: bool) -> None:
        """Ignore a confirm, because the channel is not in confirm mode."""

    def on_return(
        self,
        reason: str,
        exchange: str,  # noqa: ARG002 - the id identifies the message
        routing_key: str,  # noqa: ARG002 - as above
        properties: bytes,
    ) -> None:
        """Report a returned message, for example a request to a service without a queue."""
        self._on_returned(message_id_of(properties), reason)

    def on_cancel(self) -> None:
        """Ignore a cancel, because the channel has no consumer."""

    def on_close(self, why: str) -> None:
        """Report the messages that the broker may have dropped when it closed the channel.

        These are the first message that the broker may have refused, and all later messages. The
        broker has accepted all earlier messages.
        """
        if not self.alive:
            return
        self.ended.set_result(why)
        # Messages are reported only if the broker closed the channel. A lost connection fails all
        # calls anyway. If the bus closed the channel, no report is needed.
        if why.startswith(CLOSED_BY_BROKER):
            ids = [message_id for message_id, _, _ in self._written]
            written = [address for _, address, _ in self._written]
            sizes = [size for _, _, size in self._written]
            begin = min(ChannelClosure(why, written, sizes).suspects, default=0)
            closure = ChannelClosure(why, written[begin:], sizes[begin:])
            for message_id, error in zip(ids[begin:], closure.fates(), strict=True):
                self._on_failed(message_id, error)

    def release(self) -> None:
        """Stop handling the channel's frames. Call this before aiormq closes the channel."""
        self.lane.detach(self._number, self)
        self.on_close("the channel was closed")
