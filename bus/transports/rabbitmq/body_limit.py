"""The limits of message bodies on RabbitMQ: of what is sent, and of what aiormq collects."""

import asyncio
import logging
from collections.abc import Callable
from typing import Any

from aiormq.abc import DeliveredMessage
from aiormq.channel import Channel
from pamqp.body import ContentBody
from pamqp.commands import Basic
from pamqp.header import ContentHeader

from bus.messaging.body_limit import check_body
from bus.messaging.envelope import Envelope
from bus.transports.rabbitmq.amqp.oversized_publish import parse_too_large
from bus.transports.rabbitmq.exceptions import closing_reason

__all__ = ["SendLimit", "drop_large_bodies"]

log = logging.getLogger("bus.rabbitmq")


class SendLimit:
    """The maximum size of a body that a transport sends.

    The limit is the setting `max_message`, or the broker's `max_message_size` if that is lower. The
    broker does not announce its limit. It closes a channel on which a larger message is published,
    and names the limit as the reason. After the first such close, larger messages are refused
    before they are sent, so that they close no further channel.
    """

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes

    def check(self, envelope: Envelope) -> None:
        """Raise `InvalidArgument` if a message is too large to send."""
        check_body(envelope, self.max_bytes)

    def watch(self, ended: "asyncio.Future[Any]") -> None:
        """Learn the broker's limit if the broker closes a channel because of it.

        Args:
            ended: Future that is done when a channel of the transport has ended. Its result or its
                exception has the broker's text.
        """
        ended.add_done_callback(self._on_ended)

    def _on_ended(self, ended: "asyncio.Future[Any]") -> None:
        if ended.cancelled():
            return
        why = str(ended.result()) if ended.exception() is None else closing_reason(ended)
        sizes = parse_too_large(why or "")
        if sizes is not None and sizes[1] < self.max_bytes:
            self.max_bytes = sizes[1]
            log.error(
                "BUS_MAX_MESSAGE is above the broker's limit (max_message_size, %d bytes); larger "
                "messages are refused from now on. Set both to the same number",
                self.max_bytes,
                extra={"max_bytes": self.max_bytes},
            )


def drop_large_bodies(
    channel: Channel, max_bytes: Callable[[], int], on_drop: Callable[[int, int], None]
) -> None:
    """Make aiormq drop the bodies of large deliveries while they arrive.

    aiormq has no hook for this change, so a method of this one channel is replaced.

    Args:
        channel: Channel of a consumer.
        max_bytes: Returns the maximum bytes of a body that is kept.
        on_drop: Called with the delivery tag and the size of a dropped body, before the delivery.
    """
    read_content = channel._read_content  # noqa: SLF001 - see the docstring

    async def read(frame: Any, header: ContentHeader) -> DeliveredMessage:
        size = header.body_size or 0
        if size <= max_bytes() or not isinstance(frame, Basic.Deliver):
            return await read_content(frame, header)
        missing = size
        while missing > 0:
            content = await channel._get_frame()  # noqa: SLF001 - as above
            if not isinstance(content, ContentBody):
                raise ValueError("a frame is misplaced in a message's content")  # noqa: TRY004
            missing -= len(content.value)
        on_drop(frame.delivery_tag or 0, size)
        return DeliveredMessage(delivery=frame, header=header, body=b"", channel=channel)

    channel._read_content = read  # type: ignore[method-assign]  # noqa: SLF001
