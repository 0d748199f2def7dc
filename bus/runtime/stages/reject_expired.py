"""Rejection of an event or job that was not handled before its expiry time."""

from collections.abc import Awaitable

from bus.errors import Expired
from bus.runtime.endpoint_state import EndpointState
from bus.runtime.inbound_message import (
    HandlingResult,
    InboundHandler,
    InboundMessage,
    InboundStage,
    immediately,
)

__all__ = ["reject_expired"]


def reject_expired(state: EndpointState) -> InboundStage:
    """Return the stage that fails a message whose expiry time (`expires`) has passed."""
    clock = state.runtime.clock

    def stage(inner: InboundHandler) -> InboundHandler:
        def call(message: InboundMessage) -> Awaitable[HandlingResult]:
            expires = message.envelope.expires
            if expires is None or expires > clock() * 1000:
                return inner(message)
            name = message.envelope.type
            error = Expired(f"{name}: the message expired before it was handled. Send it again.")
            return immediately(HandlingResult(error=error))

        return call

    return stage
