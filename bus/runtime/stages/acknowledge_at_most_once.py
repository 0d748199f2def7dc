"""Early ack: a request that must not run twice is acked before its handler starts."""

from bus.errors import Unavailable
from bus.runtime.endpoint_state import EndpointState
from bus.runtime.inbound_message import (
    NO_ACTION,
    HandlingResult,
    InboundHandler,
    InboundMessage,
    InboundStage,
    pass_through,
)

__all__ = ["acknowledge_at_most_once"]


def acknowledge_at_most_once(state: EndpointState) -> InboundStage:
    """Return the stage that acks a request, and only then calls the handler (ADR 0007)."""
    if not state.runs_at_most_once:
        return pass_through

    def stage(inner: InboundHandler) -> InboundHandler:
        async def call(message: InboundMessage) -> HandlingResult:
            if message.deliveries[0].redelivered:
                # Another process may have started the request, and lost its connection before the
                # broker received the ack.
                problem = "the request was delivered twice, and may have run already"
                return HandlingResult(
                    error=Unavailable(f"{message.envelope.type}: {problem}", maybe_executed=True)
                )
            if not await message.ack():
                return NO_ACTION  # the ack failed, so the broker delivers the request again
            return await inner(message)

        return call

    return stage
