"""A queue's consumer as a FastStream subscriber: the broker's middlewares see each message come, and its handling is the bus's."""

import asyncio
import logging
import secrets
from collections.abc import Callable
from datetime import datetime
from functools import partial
from typing import Any, cast

from faststream import AckPolicy
from faststream.rabbit import Channel as ChannelOptions
from faststream.rabbit import RabbitMessage, RabbitQueue
from typing_extensions import override

from bus.errors import BusError
from bus.messaging.topology.model import Queue, Topology
from bus.transports.faststream.connection import RobustConnection
from bus.transports.rabbitmq.aiormq_channels import AiormqConsumerChannel
from bus.transports.rabbitmq.connection import CLOSE_TIMEOUT_SECONDS, RPC_TIMEOUT_SECONDS, Channel
from bus.transports.rabbitmq.consumer import ConsumerChannelPort, RabbitMQConsumer
from bus.transports.rabbitmq.exceptions import EXPECTED_ERRORS, map_errors
from bus.transports.rabbitmq.lenient_reader import accept_unknown_delivery_mode
from bus.transports.wire_format import AmqpMessage

__all__ = ["FastStreamConsumer"]

log = logging.getLogger("bus.faststream")


class FastStreamConsumer(RabbitMQConsumer):
    """A supervised consumer whose channel and registration are FastStream's.

    FastStream starts a subscriber once, and leaves the rest to aio-pika. So this one's queue is nothing that aio-pika
    restores: when the channel or the consumer ends, the supervised step opens the channel and starts the subscriber again.
    """

    def __init__(  # noqa: PLR0913 - as of `Consumer`
        self,
        link: RobustConnection,
        queue: Queue,
        topology: Topology,
        *,
        prefetch: int,
        acks: bool,
        confirms: bool,
        opened: Callable[[Channel], AiormqConsumerChannel],
        consumer_timeout: float | None = None,
    ) -> None:
        """As of `Consumer`; `confirms` where replies go out on its channel."""
        super().__init__(
            link,
            queue,
            topology,
            prefetch=prefetch,
            acks=acks,
            confirms=confirms,
            channel_factory=opened,
            consumer_timeout=consumer_timeout,
        )
        self._broker = link.broker
        self._options = ChannelOptions(
            prefetch_count=prefetch or None, publisher_confirms=confirms, on_return_raises=confirms
        )
        self._robust: Any = None
        """aio-pika's channel, which FastStream keeps for this subscriber."""
        self._taking: AiormqConsumerChannel | None = None
        self._subscriber = self._broker.subscriber(
            _own(queue.name),
            channel=self._options,
            ack_policy=AckPolicy.MANUAL if acks else AckPolicy.ACK_FIRST,
            no_reply=True,
            parser=_default_parser,
            persistent=False,
            include_in_schema=False,
            **_untouched_by(self._broker),
        )
        self._subscriber(self._take)

    async def _take(self, message: Any) -> None:
        """One message, from FastStream. One of a channel that is gone is dropped: it comes again."""
        raw = message.raw_message
        try:
            channel = raw.channel
        except EXPECTED_ERRORS:
            return
        if self._taking is not None and channel is self._taking.channel:
            self._taking.deliver(
                raw.delivery_tag or 0, partial(_wire_of, message), redelivered=bool(raw.redelivered)
            )

    @override
    async def _open_channel(self) -> Channel:
        async with asyncio.timeout(RPC_TIMEOUT_SECONDS):
            # Made the first time, and then the same for ever.
            self._robust = robust = await self._broker.config.channel_manager.get_channel(
                self._options
            )
            if robust.is_closed:
                await robust.reopen()
            return accept_unknown_delivery_mode(
                cast("Channel", await robust.get_underlay_channel())
            )

    @override
    async def _register(self, channel: Channel, current: ConsumerChannelPort) -> str:
        name = self._link.broker_name_of(self.name)
        if self._subscriber.queue.name != name:
            self._subscriber.queue = _own(name)
        self._subscriber.consume_args = self._arguments()
        self._taking = current if isinstance(current, AiormqConsumerChannel) else None
        # FastStream drops what comes while this is false, and sets it once its start has returned: a delivery must not be quicker.
        self._subscriber.running = True
        async with asyncio.timeout(RPC_TIMEOUT_SECONDS):
            await self._subscriber.start()
        return next(iter(channel.consumers))

    @override
    async def _close_channel(self, channel: Channel) -> None:
        """Close aio-pika's channel, not only the one below, which it would open again by itself."""
        self._taking = None
        try:
            with map_errors("closing a channel"):
                async with asyncio.timeout(CLOSE_TIMEOUT_SECONDS):
                    await self._robust.close()
        except BusError as error:
            log.debug("a channel did not close cleanly", extra={"why": str(error)})

    @override
    def _should_drain(self, current: ConsumerChannelPort) -> bool:
        """Never: FastStream keeps one channel for a subscriber, and the next consumer needs it."""
        return False

    @override
    async def close(self) -> None:
        """Consume no more; a broker that is started again has no part in it."""
        await super().close()
        self._broker._subscribers.discard(self._subscriber)  # noqa: SLF001 - FastStream has no other way to take one back


def _own(name: str) -> RabbitQueue:
    """The queue, which exists: it is declared by the bus, and not by FastStream.

    FastStream keeps one object, and so one channel, for all equal queues; the argument, which a passive declaration does
    not look at, makes each unlike the others.
    """
    unlike: Any = {"x-trunkline": secrets.token_hex(6)}
    return RabbitQueue(name, declare=False, robust=False, arguments=unlike)


async def _default_parser(message: Any, original: Callable[[Any], Any]) -> Any:
    """FastStream's own, whatever the application has set for its messages."""
    return await original(message)


async def _as_it_is(message: RabbitMessage) -> RabbitMessage:
    """The decoder: the body is bytes to FastStream."""
    return message


class _AsItIs:
    """The same as a codec: a broker has either, and a subscriber cannot have the other."""

    async def decode(self, message: RabbitMessage) -> Any:
        return message

    async def encode(self, message: Any, serializer: Any = None) -> tuple[bytes, str | None]:
        raise NotImplementedError("nothing is sent by this subscriber")


def _untouched_by(broker: Any) -> dict[str, Any]:
    return {"codec": _AsItIs()} if broker.config.broker_codec else {"decoder": _as_it_is}


def _wire_of(message: RabbitMessage) -> AmqpMessage:
    """What was delivered, whoever sent it."""
    raw: Any = message.raw_message
    return AmqpMessage(
        body=raw.body,
        headers=raw.headers,
        message_id=raw.message_id,
        type=raw.type,
        app_id=raw.app_id,
        content_type=raw.content_type or None,
        timestamp=int(raw.timestamp.timestamp()) if isinstance(raw.timestamp, datetime) else 0,
        delivery_mode=int(raw.delivery_mode),
        reply_to=raw.reply_to,
        correlation_id=raw.correlation_id,
        expiration=None if raw.expiration is None else str(round(float(raw.expiration) * 1000)),
    )
