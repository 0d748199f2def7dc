"""A consumer that receives the messages of a queue through a FastStream subscriber.

FastStream runs the broker's middlewares for each message, and then passes it to the bus.
"""

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
from bus.messaging.topology.consumer_spec import ConsumerSpec
from bus.transports.faststream.connection import RobustConnection
from bus.transports.rabbitmq.aiormq_channels import AiormqConsumerChannel
from bus.transports.rabbitmq.consumer import ConsumerChannelPort, RabbitMQConsumer
from bus.transports.rabbitmq.control_channel import ControlConsumer
from bus.transports.rabbitmq.exceptions import EXPECTED_ERRORS, map_errors
from bus.transports.rabbitmq.lenient_reader import accept_unknown_delivery_mode
from bus.transports.rabbitmq.open_connection import (
    CLOSE_TIMEOUT_SECONDS,
    RPC_TIMEOUT_SECONDS,
    Channel,
)
from bus.transports.wire_format import AmqpMessage

__all__ = ["FastStreamConsumer", "FastStreamControlConsumer"]

log = logging.getLogger("bus.faststream")


class FastStreamConsumer(RabbitMQConsumer):
    """A supervised consumer that uses a FastStream subscriber and the subscriber's channel.

    FastStream starts a subscriber only once. After a reconnect, aio-pika restores the consumers of
    robust queues. The queue of this subscriber is not robust. So this class opens the channel again
    and starts the subscriber again when the channel or the consumer ends.
    """

    def __init__(
        self,
        link: RobustConnection,
        spec: ConsumerSpec,
        *,
        confirms: bool,
        opened: Callable[[Channel], AiormqConsumerChannel],
    ) -> None:
        """Create the subscriber.

        Args:
            link: The broker's connection.
            spec: The queue and the options of the consumer.
            confirms: True if replies are published on the consumer's channel.
            opened: Function that returns the consumer channel for an open channel.
        """
        super().__init__(link, spec, confirms=confirms, channel_factory=opened)
        self._broker = link.broker
        self._options = ChannelOptions(
            prefetch_count=spec.prefetch or None,
            publisher_confirms=confirms,
            on_return_raises=confirms,
        )
        self._robust: Any = None
        """The aio-pika channel that FastStream uses for this subscriber."""
        self._taking: AiormqConsumerChannel | None = None
        self._subscriber = self._broker.subscriber(
            _unique_queue(spec.queue.name),
            channel=self._options,
            ack_policy=AckPolicy.MANUAL if spec.acks else AckPolicy.ACK_FIRST,
            no_reply=True,
            parser=_default_parser,
            persistent=False,
            include_in_schema=False,
            **_decoding_options(self._broker),
        )
        self._subscriber(self._take)

    async def _take(self, message: Any) -> None:
        """Receive a message from FastStream.

        A message from an earlier channel is dropped, because the broker requeued it when that
        channel was closed.
        """
        raw = message.raw_message
        try:
            channel = raw.channel
        except EXPECTED_ERRORS:
            return
        if self._taking is not None and channel is self._taking.channel:
            self._taking.deliver(
                raw.delivery_tag or 0,
                partial(_to_amqp_message, message),
                redelivered=bool(raw.redelivered),
            )

    @override
    async def _open_channel(self) -> Channel:
        async with asyncio.timeout(RPC_TIMEOUT_SECONDS):
            # The first call of `get_channel` opens the channel. Later calls return the same object.
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
            self._subscriber.queue = _unique_queue(name)
        self._subscriber.consume_args = self._arguments()
        self._taking = current if isinstance(current, AiormqConsumerChannel) else None
        # FastStream drops messages while `running` is False, and sets `running` to True only at
        # the end of `start`. The first message can arrive before `start` ends.
        self._subscriber.running = True
        async with asyncio.timeout(RPC_TIMEOUT_SECONDS):
            await self._subscriber.start()
        return next(iter(channel.consumers))

    @override
    async def _close_channel(self, channel: Channel) -> None:
        """Close the robust channel.

        If only the underlying `channel` were closed, aio-pika would reopen the robust channel.
        """
        self._taking = None
        try:
            with map_errors("closing a channel"):
                async with asyncio.timeout(CLOSE_TIMEOUT_SECONDS):
                    await self._robust.close()
        except BusError as error:
            log.debug(
                "%s: the channel did not close cleanly: %s",
                self.name,
                error,
                extra={"queue": self.name, "why": str(error)},
            )

    @override
    def _should_drain(self, current: ConsumerChannelPort) -> bool:
        """Return False, because FastStream uses the same channel for the next registration."""
        return False

    @override
    async def close(self) -> None:
        """Stop the consumer. Remove the subscriber from the FastStream broker.

        Otherwise, a restart of the FastStream broker would start the subscriber again.
        """
        await super().close()
        # FastStream has no public method that removes a subscriber.
        self._broker._subscribers.discard(self._subscriber)  # noqa: SLF001


class FastStreamControlConsumer(ControlConsumer, FastStreamConsumer):
    """The consumer of a control channel that uses a FastStream subscriber."""


def _unique_queue(name: str) -> RabbitQueue:
    """Return a queue that FastStream does not declare. The bus has declared it already.

    FastStream uses the same queue object and the same channel for all queues that are equal. A
    random argument makes each queue different from the others. With `declare=False`, FastStream
    only checks that the queue exists, and the broker ignores the argument.
    """
    unique: Any = {"x-trunkline": secrets.token_hex(6)}
    return RabbitQueue(name, declare=False, robust=False, arguments=unique)


async def _default_parser(message: Any, original: Callable[[Any], Any]) -> Any:
    """Parse with FastStream's own parser, even if the application has set a different parser."""
    return await original(message)


async def _keep_bytes(message: RabbitMessage) -> RabbitMessage:
    """Return the message unchanged. Its body is not decoded and stays bytes."""
    return message


class _BytesCodec:
    """A codec that does not decode the body. It has the same effect as the decoder `_keep_bytes`.

    If the broker has a codec, the subscriber uses this class, because FastStream requires a codec.
    If the broker has no codec, the subscriber uses `_keep_bytes`.
    """

    async def decode(self, message: RabbitMessage) -> Any:
        return message

    async def encode(self, message: Any, serializer: Any = None) -> tuple[bytes, str | None]:
        raise NotImplementedError("this subscriber sends no messages")


def _decoding_options(broker: Any) -> dict[str, Any]:
    return {"codec": _BytesCodec()} if broker.config.broker_codec else {"decoder": _keep_bytes}


def _to_amqp_message(message: RabbitMessage) -> AmqpMessage:
    """Return a delivered message as an `AmqpMessage`."""
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
