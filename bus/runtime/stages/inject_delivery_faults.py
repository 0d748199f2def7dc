"""Injection of lost replies and repeated deliveries, for tests and game days."""

from collections.abc import Awaitable

from bus.runtime.endpoint_state import EndpointState
from bus.runtime.inbound_message import (
    NO_ACTION,
    REQUEUE,
    SETTLED,
    HandlingResult,
    InboundHandler,
    InboundMessage,
    InboundStage,
)

__all__ = ["inject_delivery_faults"]


def inject_delivery_faults(state: EndpointState) -> InboundStage:
    """Return the stage that drops replies and repeats messages, as the experiment decides.

    Only the reply to a request can be dropped. An event or job is always settled, so no accepted
    message is lost. A message is repeated as after a lost ack: the later stages skip the second
    delivery if the first one was handled. A request that runs at most once is acked before it runs,
    and is never delivered again, so it is not repeated.
    """
    chaos, contract = state.runtime.chaos, state.endpoint.contract
    type_, can_repeat = contract.type, not state.runs_at_most_once
    has_reply = contract.kind == "request"

    def stage(inner: InboundHandler) -> InboundHandler:
        async def call_with_faults(message: InboundMessage) -> HandlingResult:
            result = await inner(message)
            if result is NO_ACTION or result is REQUEUE:
                return result
            if can_repeat and chaos.duplicates(type_):
                again = await inner(message)
                # The result of the first delivery is not sent yet. If the second one is skipped or
                # refused, its result tells nothing about the handler.
                if again.has_run:
                    result = again
            if has_reply and chaos.drops_reply(type_):
                return SETTLED  # the receiver only acks it, and the caller waits in vain
            return result

        def call(message: InboundMessage) -> Awaitable[HandlingResult]:
            if chaos.experiment is None:
                return inner(message)
            return call_with_faults(message)

        return call

    return stage
