"""Deduplication: a copy of a message that was already handled is not handled again.

Source: Idempotent Receiver in Hohpe and Woolf, "Enterprise Integration Patterns" (2003).
"""

import logging
from functools import partial

from bus.messaging.envelope import Envelope
from bus.messaging.labels import message_facts, message_label
from bus.messaging.ports.inbox import HandledMessage, MessageKey
from bus.runtime.endpoint_state import EndpointState
from bus.runtime.failure_log import UNEXPECTED
from bus.runtime.inbound_message import (
    SETTLED,
    HandlingResult,
    InboundHandler,
    InboundMessage,
    InboundStage,
    pass_through,
)
from bus.runtime.inbox_retry import retry_inbox

__all__ = ["deduplicate"]

log = logging.getLogger("bus.activator")


def deduplicate(state: EndpointState) -> InboundStage:
    """Return the stage that skips handled messages, and adds each success to the inbox.

    A message that failed is not added, because a replay of its dead letter must be handled. If the
    handler is transactional, `claim_message` replaces this stage.
    """
    endpoint = state.endpoint
    # An answer about a job is never kept: the job changes, and it can be asked for each second.
    if state.runs_at_most_once or endpoint.is_transactional or endpoint.is_internal:
        return pass_through
    inbox, queue, measures = state.runtime.inbox, endpoint.queue, state.measures

    def stage(inner: InboundHandler) -> InboundHandler:
        async def call(message: InboundMessage) -> HandlingResult:
            envelope = message.envelope
            key = MessageKey(queue, envelope.source, envelope.id)
            try:
                handled = await inbox.find(key)
            except UNEXPECTED as error:  # a user's inbox can raise any exception
                handled = await retry_inbox(partial(inbox.find, key), envelope, error)
            if handled is not None:
                if measures is not None:
                    measures.skipped()
                if log.isEnabledFor(logging.DEBUG):
                    log.debug(
                        "%s is a duplicate; it was handled before",
                        message_label(envelope),
                        extra=message_facts(envelope),
                    )
                return SETTLED if handled.reply is None else HandlingResult(reply=handled.reply)
            result = await inner(message)
            if result.error is None:
                handled = HandledMessage(reply=_reply_to_keep(envelope, result))
                try:
                    await inbox.add(key, handled)
                except UNEXPECTED as error:  # as above
                    await retry_inbox(partial(inbox.add, key, handled), envelope, error)
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
