"""Rejection of messages from a sender that is not authenticated or not authorized."""

from collections.abc import Awaitable

from bus.errors import BusError, UnknownKey
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
    """Return the stage that checks a message's token or proof, and the sender's rights.

    An unknown signing key may be new, so the stage fetches the keys again. A request waits for this
    fetch. An event or job waits once in a retry tier. After the wait, the message is checked again.
    An event or job also waits once if a grant is missing.
    """
    if state.runtime.security.identity.is_anonymous:
        return pass_through
    guard = state.guard

    def stage(inner: InboundHandler) -> InboundHandler:
        async def reject(message: InboundMessage, error: BusError) -> HandlingResult:
            envelope = message.envelope
            if guard.may_wait(envelope, error):
                if isinstance(error, UnknownKey):
                    guard.refresh_keys()
                return HandlingResult(error=error, unauthorized=True, waits=True)
            if isinstance(error, UnknownKey):
                remaining = await guard.recheck_with_new_keys(envelope)
                if remaining is None:
                    return await inner(message)
                error = remaining
            return HandlingResult(error=error, unauthorized=True)

        def call(message: InboundMessage) -> Awaitable[HandlingResult]:
            error = guard.authorize(message.envelope)
            return inner(message) if error is None else reject(message, error)

        return call

    return stage
