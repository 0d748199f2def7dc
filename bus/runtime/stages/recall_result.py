"""Reuse of the result of a message that this process handled, but could not settle or ack."""

from collections.abc import Awaitable

from bus.runtime.endpoint_state import EndpointState
from bus.runtime.inbound_message import (
    HandlingResult,
    InboundHandler,
    InboundMessage,
    InboundStage,
    immediately,
)

__all__ = ["recall_result"]


def recall_result(state: EndpointState) -> InboundStage:
    """Return the stage that returns the remembered result instead of a second run.

    An earlier stage can also set the result of this delivery, for example if the message was lost
    too often.
    """
    in_flight = state.in_flight

    def stage(inner: InboundHandler) -> InboundHandler:
        def call(message: InboundMessage) -> Awaitable[HandlingResult]:
            if message.result is not None:
                return immediately(message.result)
            # A caller that retries sends a new message with the same id. The remembered result is
            # for the redelivery of the old one.
            if not in_flight.results or _is_new_request(message):
                return inner(message)
            result = in_flight.recall(message)
            return inner(message) if result is None else immediately(result)

        return call

    return stage


def _is_new_request(message: InboundMessage) -> bool:
    return message.envelope.role == "request" and not message.deliveries[0].redelivered
