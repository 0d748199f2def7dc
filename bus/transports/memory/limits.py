"""The limits of AMQP and of RabbitMQ that a message must not exceed.

The RabbitMQ transport refuses the same messages. So a test detects them without a broker.
"""

from collections.abc import Iterator

from bus.errors import InvalidArgument
from bus.messaging.topology.addresses import Address
from bus.transports.wire_format import AmqpMessage

__all__ = ["check_limits"]

MAX_SHORT_BYTES = 255
"""Maximum bytes of an AMQP short string, such as a message id or the name of a header."""
INT64 = range(-(2**63), 2**63)
MAX_FRAME_BYTES = 128 * 1024
"""RabbitMQ's default for the largest frame. All properties must fit into one frame."""
FRAME_OVERHEAD_BYTES = 32
OTHER_PROPERTIES_BYTES = 32
"""Bytes of the properties that have a fixed size: flags, content type, mode and timestamp."""


def check_limits(wire: AmqpMessage, address: Address) -> None:
    """Check that AMQP can encode a message, and that its properties fit into one frame.

    Raises:
        InvalidArgument: The message exceeds a limit.
    """
    try:
        size = OTHER_PROPERTIES_BYTES + sum(_sizes(wire))
        sum(_short(text) for text in (address.exchange, address.routing_key))
    except ValueError:  # raised outside of the block, because the cause may show a value
        size = None
    if size is None:
        raise InvalidArgument(
            "an attribute, header or address of the message is too long for AMQP, or is not a "
            "valid text or number. Correct it."
        )
    if size > MAX_FRAME_BYTES - FRAME_OVERHEAD_BYTES:
        raise InvalidArgument(
            f"the headers have {size} bytes and must fit into a frame of {MAX_FRAME_BYTES} bytes. "
            "Send fewer or shorter headers."
        )


def _sizes(wire: AmqpMessage) -> Iterator[int]:
    """Yield the encoded bytes of each property and header. Raise `ValueError` for a wrong value."""
    texts = (wire.message_id, wire.type, wire.app_id, wire.reply_to, wire.correlation_id)
    yield from (_short(text) for text in (*texts, wire.expiration) if text is not None)
    for name, value in wire.headers.items():
        yield _short(name) + 1
        if isinstance(value, str):
            yield 4 + len(value.encode())
        elif not isinstance(value, int) or value not in INT64:
            raise ValueError(name)
        else:
            yield 1 if isinstance(value, bool) else 8


def _short(text: str) -> int:
    size = len(text.encode())
    if size > MAX_SHORT_BYTES:
        raise ValueError(size)
    return 1 + size
