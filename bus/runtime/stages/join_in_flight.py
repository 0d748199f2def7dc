"""Joining of redeliveries: a message that is still being handled does not start again."""

from collections.abc import Awaitable

from bus.runtime.endpoint_state import EndpointState
from bus.runtime.inbound_message import (
    NO_ACTION,
    HandlingResult,
    InboundHandler,
    InboundMessage,
    InboundStage,
    immediately,
)

__all__ = ["join_in_flight"]


def join_in_flight(state: EndpointState) -> InboundStage:
    """Return the stage that adds a redelivery to the message that is still being handled.

    After a lost connection the broker redelivers a message although the message's handler still
    runs. When the handler ends, every delivery of the message is acked.
    """
    in_flight = state.in_flight

    def stage(inner: InboundHandler) -> InboundHandler:
        def call(message: InboundMessage) -> Awaitable[HandlingResult]:
            first = in_flight.open.setdefault(message.key, message)
            if first is not message and in_flight.join(message, first):
                return immediately(NO_ACTION)
            return inner(message)

        return call

    return stage
