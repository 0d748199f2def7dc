"""Registration of a claimed job as a message that is being handled."""

from collections.abc import Awaitable

from bus.runtime.endpoint_state import EndpointState
from bus.runtime.inbound_message import (
    HandlingResult,
    InboundHandler,
    InboundMessage,
    InboundStage,
)

__all__ = ["enter_in_flight"]


def enter_in_flight(state: EndpointState) -> InboundStage:
    """Return the stage that registers a claimed job, so that reports of this process show it.

    Claims are never joined as redeliveries are. Each claim has its own lease, and the feed gives
    the claim of a job that runs here to the running attempt.
    """
    in_flight = state.in_flight
    claims = 0

    def stage(inner: InboundHandler) -> InboundHandler:
        def call(message: InboundMessage) -> Awaitable[HandlingResult]:
            nonlocal claims
            claims += 1
            message.key = (*message.key[:4], claims)
            in_flight.open[message.key] = message
            return inner(message)

        return call

    return stage
