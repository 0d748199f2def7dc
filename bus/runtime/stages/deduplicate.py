"""Deduplication: a copy of a message that was already handled is not handled again.

Source: Idempotent Receiver in Hohpe and Woolf, "Enterprise Integration Patterns" (2003).
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TypeVar

from bus.errors import error_location
from bus.messaging.backoff import backoff
from bus.messaging.envelope import Envelope
from bus.messaging.ports.inbox import HandledMessage, MessageKey
from bus.runtime.endpoint_state import EndpointState
from bus.runtime.inbound_message import (
    SETTLED,
    HandlingResult,
    InboundHandler,
    InboundMessage,
    InboundStage,
    pass_through,
)

__all__ = ["INBOX_RETRY_SECONDS", "deduplicate"]

log = logging.getLogger("bus.activator")

T = TypeVar("T")

INBOX_RETRY_SECONDS = 300.0
"""Seconds to retry an inbox that fails. This time plus the handler's time must be less than
RabbitMQ's consumer timeout of 30 minutes."""


def deduplicate(state: EndpointState) -> InboundStage:
    """Return the stage that looks up each message in the inbox, and adds it if it succeeds.

    A message that failed is not added, because a replay of its dead letter must be handled.
    """
    if state.runs_at_most_once:
        return pass_through
    inbox, queue = state.runtime.inbox, state.endpoint.queue

    def stage(inner: InboundHandler) -> InboundHandler:
        async def call(message: InboundMessage) -> HandlingResult:
            envelope = message.envelope
            key = MessageKey(queue, envelope.source, envelope.id)
            try:
                handled = await inbox.find(key)
            except Exception as error:  # noqa: BLE001 - a user's inbox can raise any exception
                handled = await _retry(partial(inbox.find, key), envelope, error)
            if handled is not None:
                facts = {"queue": envelope.queue, "message_id": envelope.id}
                log.debug("a duplicate; it was handled before", extra=facts)
                return SETTLED if handled.reply is None else HandlingResult(reply=handled.reply)
            result = await inner(message)
            if result.error is None:
                handled = HandledMessage(reply=_reply_to_keep(envelope, result))
                try:
                    await inbox.add(key, handled)
                except Exception as error:  # noqa: BLE001 - as above
                    await _retry(partial(inbox.add, key, handled), envelope, error)
            return result

        return call

    return stage


def _reply_to_keep(envelope: Envelope, result: HandlingResult) -> Envelope | None:
    """Return the reply if a caller or submitter waits for it.

    A job's result is sent after this stage. If this process ends before it has sent the result, the
    inbox has the only copy.
    """
    is_awaited = envelope.role == "request" or envelope.reply_to is not None
    return result.reply if is_awaited else None


async def _retry(operation: Callable[[], Awaitable[T]], envelope: Envelope, error: Exception) -> T:
    """Repeat an inbox operation until it succeeds, and raise its error after `INBOX_RETRY_SECONDS`.

    The message is not requeued, because before RabbitMQ 4.3 each requeue counts as a lost
    delivery.
    """
    facts = {
        "queue": envelope.queue,
        "message_id": envelope.id,
        "error": type(error).__name__,
        "where": error_location(error),
    }
    log.error("the inbox failed; the message waits while the bus retries", extra=facts)
    loop = asyncio.get_running_loop()
    ends, attempt = loop.time() + INBOX_RETRY_SECONDS, 0
    while True:
        attempt += 1
        await asyncio.sleep(backoff(attempt))
        try:
            return await operation()
        except Exception:  # the inbox is a user's code, and can raise any exception
            if loop.time() > ends:
                raise
