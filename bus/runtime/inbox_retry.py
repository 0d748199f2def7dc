"""Retries of an inbox that fails."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import TypeVar

from bus.messaging.backoff import backoff
from bus.messaging.debug_switch import exception_to_log
from bus.messaging.envelope import Envelope
from bus.messaging.failure_location import failure_facts
from bus.messaging.labels import failure_label, message_facts, message_label

__all__ = ["INBOX_RETRY_SECONDS", "InboxFailed", "retry_inbox"]

log = logging.getLogger("bus.activator")

T = TypeVar("T")

INBOX_RETRY_SECONDS = 300.0
"""Seconds to retry an inbox that fails. This time plus the handler's time must be less than
RabbitMQ's consumer timeout of 30 minutes."""


class InboxFailed(Exception):
    """An inbox that failed for `INBOX_RETRY_SECONDS`. The cause is its last exception.

    The message is requeued, because it is not the cause of the failure.
    """


async def retry_inbox(
    operation: Callable[[], Awaitable[T]], envelope: Envelope, error: Exception
) -> T:
    """Repeat an inbox operation until it succeeds.

    After `INBOX_RETRY_SECONDS`, raise `InboxFailed`.

    The message is not requeued, because before RabbitMQ 4.3 each requeue counts as a lost
    delivery.
    """
    facts = message_facts(envelope, **failure_facts(error))
    log.error(
        "%s in %s: the inbox failed (%s); the message waits while the bus retries",
        message_label(envelope),
        envelope.queue,
        failure_label(facts),
        extra=facts,
        exc_info=exception_to_log(error),
    )
    loop = asyncio.get_running_loop()
    ends, attempt = loop.time() + INBOX_RETRY_SECONDS, 0
    while True:
        attempt += 1
        await asyncio.sleep(backoff(attempt))
        try:
            return await operation()
        except Exception as last:  # the inbox is a user's code, and can raise any exception
            if loop.time() > ends:
                raise InboxFailed from last
