"""Join a redelivery of a message that is still in flight."""

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
    """Return the stage that lets the work in flight settle a redelivery of its message, too.

    The broker delivers a message again when its connection was lost. The work goes on, and acks
    every delivery of its message when it ends.
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
