"""The limit of a message's body, and the texts for a body that exceeds it.

The sender refuses a larger body, and the receiver does not keep it (`BUS_MAX_MESSAGE`).
"""

from bus.contracts.contract import encode
from bus.errors import FailedPrecondition, InvalidArgument
from bus.messaging.envelope import ERROR_TYPE, Envelope, ErrorReply

__all__ = [
    "DEFAULT_MAX_BODY_BYTES",
    "HIGHEST_MAX_BODY_BYTES",
    "LOWEST_MAX_BODY_BYTES",
    "UNLIMITED_BYTES",
    "check_body",
    "unread_reply",
    "without_body",
]

DEFAULT_MAX_BODY_BYTES = 16 * 1024 * 1024
"""Default of the setting `max_message`. RabbitMQ 4 has the same default (`max_message_size`)."""
LOWEST_MAX_BODY_BYTES = 4096
"""Lowest value of the setting. An error reply of the bus always fits."""
HIGHEST_MAX_BODY_BYTES = 512 * 1024 * 1024
"""Highest value of the setting. RabbitMQ cannot be configured to accept more."""
UNLIMITED_BYTES = 2**63
"""Limit of a consumer that reads every body. No body is larger."""


def check_body(envelope: Envelope, limit: int) -> None:
    """Check that a message may be sent.

    A copy of a delivered message is never too large. The copy must reach its retry tier or
    dead-letter queue, also if another service has a higher limit.

    Raises:
        InvalidArgument: The body has more than `limit` bytes.
    """
    if len(envelope.body) > limit and envelope.queue is None:
        raise InvalidArgument(
            f"the message has {len(envelope.body)} bytes, the limit is {limit} bytes "
            "(BUS_MAX_MESSAGE). Store the data elsewhere and send a reference."
        )


def without_body(envelope: Envelope, size: int, limit: int) -> Envelope:
    """Return a received message without its body of `size` bytes. Its `fault` tells why."""
    fault = (
        f"the message has {size} bytes, the receiver reads at most {limit} bytes "
        "(BUS_MAX_MESSAGE). Store the data elsewhere and send a reference, or raise the "
        "receiver's limit."
    )
    return envelope.replace(body=b"", unread_bytes=size, fault=fault)


def unread_reply(reply: Envelope) -> Envelope:
    """Return the error reply that replaces a reply or job update without its body."""
    code = FailedPrecondition.code
    body = ErrorReply(code=code, message=reply.fault or "", retryable=False, maybe_executed=True)
    return reply.replace(
        type=ERROR_TYPE, error=code, body=encode(body), fault=None, unread_bytes=None
    )
