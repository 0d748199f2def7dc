"""The broker's error for a publish that exceeds its `max_message_size`."""

import re

from bus.errors import InvalidArgument

__all__ = ["parse_too_large", "too_large_for_broker"]

# RabbitMQ 3.10 sends: message size 200000001 is larger than configured max size 134217728. If the
# limit is the highest possible one, the word "configured" is missing.
SIZES_PATTERN = re.compile(
    r"message size (\d{1,18}) is larger than (?:configured )?max size (\d{1,18})"
)


def parse_too_large(why: str) -> tuple[int, int] | None:
    """Return the size of the refused message and the broker's limit, in bytes.

    Args:
        why: Reason why the broker closed a channel. If it is another reason, the result is None.
    """
    match = SIZES_PATTERN.search(why)
    return None if match is None else (int(match[1]), int(match[2]))


def too_large_for_broker(size: int, limit: int) -> InvalidArgument:
    """Return the error of a publish that the broker refused. Both arguments are in bytes."""
    return InvalidArgument(
        f"message not sent: the message has {size} bytes, the broker accepts at most {limit} bytes "
        "(max_message_size). Store the data elsewhere and send a reference."
    )
