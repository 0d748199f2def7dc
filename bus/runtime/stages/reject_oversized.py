"""Rejection of an event or job whose body was dropped, because it is too large."""

from collections.abc import Awaitable

from bus.errors import InvalidArgument
from bus.runtime.endpoint_state import EndpointState
from bus.runtime.inbound_message import (
    HandlingResult,
    InboundHandler,
    InboundMessage,
    InboundStage,
    immediately,
    pass_through,
)

__all__ = ["reject_oversized"]


def reject_oversized(state: EndpointState) -> InboundStage:
    """Return the stage that fails an event or job without its body.

    The proof signs a digest of the body, so the sender cannot be authenticated. For this reason,
    the result is `unauthorized`. A request is not failed here. Its token can be checked, and
    `reject_malformed` fails the request after that check.
    """
    if state.endpoint.contract.kind == "request":
        return pass_through

    def stage(inner: InboundHandler) -> InboundHandler:
        def call(message: InboundMessage) -> Awaitable[HandlingResult]:
            envelope = message.envelope
            if envelope.unread_bytes is None:
                return inner(message)
            error = InvalidArgument(envelope.fault or "")
            return immediately(HandlingResult(error=error, unauthorized=True))

        return call

    return stage
