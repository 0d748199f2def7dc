"""Decryption of the payload."""

from collections.abc import Awaitable

from bus.runtime.endpoint_state import EndpointState
from bus.runtime.inbound_message import (
    HandlingResult,
    InboundHandler,
    InboundMessage,
    InboundStage,
    immediately,
)

__all__ = ["decrypt"]


def decrypt(state: EndpointState) -> InboundStage:
    """Return the stage that gives the handler a decrypted copy of the message."""
    cipher = state.runtime.security.cipher

    def stage(inner: InboundHandler) -> InboundHandler:
        def call(message: InboundMessage) -> Awaitable[HandlingResult]:
            try:
                message.payload = cipher.decrypt(message.envelope)
            except Exception as error:  # noqa: BLE001 - a bug in decryption fails only this message
                return immediately(HandlingResult(error=error))
            return inner(message)

        return call

    return stage
