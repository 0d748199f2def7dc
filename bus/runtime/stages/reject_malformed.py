"""Rejection of a message that could not be decoded."""

import logging
from collections.abc import Awaitable

from bus.errors import Undecodable
from bus.messaging.labels import message_facts, message_label
from bus.runtime.endpoint_state import EndpointState
from bus.runtime.inbound_message import (
    HandlingResult,
    InboundHandler,
    InboundMessage,
    InboundStage,
    immediately,
)

__all__ = ["reject_malformed"]

log = logging.getLogger("bus.activator")


def reject_malformed(state: EndpointState) -> InboundStage:  # noqa: ARG001 - every stage has this parameter
    """Return the stage that fails a message that does not follow wire format 1."""

    def stage(inner: InboundHandler) -> InboundHandler:
        def call(message: InboundMessage) -> Awaitable[HandlingResult]:
            envelope = message.envelope
            if not envelope.fault:
                return inner(message)
            is_too_large = envelope.unread_bytes is not None
            log.warning(
                "%s in %s %s: %s",
                message_label(envelope),
                envelope.queue,
                "is too large" if is_too_large else "could not be decoded",
                envelope.fault,
                extra=message_facts(envelope, fault=envelope.fault),
            )
            return immediately(HandlingResult(error=Undecodable(envelope.fault)))

        return call

    return stage
