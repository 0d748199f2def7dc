"""Check of a permit that a message received before it waited for a slot (ADR 0040)."""

from collections.abc import Awaitable

from bus.messaging.resilience.circuit_breaker import Permit
from bus.runtime.dependency_gate import DependencyGate
from bus.runtime.endpoint_state import EndpointState
from bus.runtime.inbound_message import (
    HOLD,
    HandlingResult,
    InboundHandler,
    InboundMessage,
    InboundStage,
    immediately,
    pass_through,
)

__all__ = ["start_with_permit"]


def start_with_permit(state: EndpointState) -> InboundStage:
    """Return the stage that checks the permit of a message after the message has its slot.

    A message with a void permit releases its slot, and is held again. Without this check, each
    message that waits for a slot calls a dependency that has failed in the meantime.
    """
    gate, in_flight = state.dependency, state.in_flight
    if gate is None or state.endpoint.dependency_tier is None:
        return pass_through

    def stage(inner: InboundHandler) -> InboundHandler:
        def call(message: InboundMessage) -> Awaitable[HandlingResult]:
            permit = message.permit
            if permit is None:
                return inner(message)
            if gate.begin(permit):
                return _run(message, permit, gate, inner)
            message.permit = None
            in_flight.release_slot(message)
            return immediately(HOLD)

        return call

    return stage


async def _run(
    message: InboundMessage, permit: Permit, gate: DependencyGate, inner: InboundHandler
) -> HandlingResult:
    try:
        return await inner(message)
    finally:
        if message.permit is not None:  # the handler did not run
            message.permit = None
            gate.ignore(permit)
