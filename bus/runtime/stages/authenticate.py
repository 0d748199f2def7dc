"""Reject a message whose sender is not proven, or has no right to send it."""

from collections.abc import Awaitable

from bus.errors import BusError, UnknownKey
from bus.messaging.fault_record import PARKED
from bus.runtime.endpoint_state import EndpointState
from bus.runtime.inbound_message import (
    HandlingResult,
    InboundHandler,
    InboundMessage,
    InboundStage,
    pass_through,
)

__all__ = ["authenticate"]


def authenticate(state: EndpointState) -> InboundStage:
    """Return the stage that checks the token or proof of a message and the rights of its sender.

    An unknown key can be a new one. A request, and a message that waited once for its key, are
    checked again after the keys have been fetched. Any other message first waits in a retry tier.
    """
    if state.runtime.security.identity.is_anonymous:
        return pass_through
    guard = state.guard

    def stage(inner: InboundHandler) -> InboundHandler:
        async def reject(message: InboundMessage, error: BusError) -> HandlingResult:
            envelope = message.envelope
            if isinstance(error, UnknownKey):
                if envelope.role == "request" or PARKED in envelope.headers:
                    remaining = await guard.recheck_with_new_keys(envelope)
                    if remaining is None:
                        return await inner(message)
                    error = remaining
                else:
                    guard.refresh_keys()
            return HandlingResult(error=error, unauthorized=True)

        def call(message: InboundMessage) -> Awaitable[HandlingResult]:
            error = guard.authorize(message.envelope)
            return inner(message) if error is None else reject(message, error)

        return call

    return stage
