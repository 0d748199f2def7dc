"""Hold of events and jobs while the dependency of their handler is down (ADR 0040)."""

import asyncio
from collections.abc import Awaitable

from bus.errors import Unavailable
from bus.messaging.resilience.circuit_breaker import Permit
from bus.messaging.timers import loop_time
from bus.runtime.dependency_gate import DependencyGate
from bus.runtime.endpoint_state import EndpointState
from bus.runtime.handler_timeouts import SETTLING_SECONDS, hold_seconds_for
from bus.runtime.held_messages import HeldMessage, HoldEnd
from bus.runtime.inbound_message import (
    HOLD,
    NO_ACTION,
    REQUEUE,
    DependencyReturn,
    HandlingResult,
    InboundHandler,
    InboundMessage,
    InboundStage,
    pass_through,
)

__all__ = ["hold_for_dependency"]


def hold_for_dependency(state: EndpointState) -> InboundStage:
    """Return the stage that holds a message until its dependency can be tried.

    A held message stays unacked, and takes no slot. After half of the consumer timeout it returns
    by a retry tier, before the broker takes it back. A requeue would count as a lost delivery
    before RabbitMQ 4.3. A request is not held, because its caller waits.

    A message is held again if the dependency has failed while the message waited for a slot.
    """
    gate, tier = state.dependency, state.endpoint.dependency_tier
    if gate is None or tier is None:
        return pass_through
    waiting_room = _WaitingRoom(state, gate, tier)

    def stage(inner: InboundHandler) -> InboundHandler:
        async def run(message: InboundMessage, permit: Permit | None) -> HandlingResult:
            arrival, arrived, held = next(gate.arrivals), loop_time(), 0.0
            while True:
                if permit is None:
                    began = loop_time()
                    end = await waiting_room.wait(message, arrival, arrived)
                    if isinstance(end, HandlingResult):
                        return end
                    permit, held = end, held + loop_time() - began
                result = await _run(message, permit, gate, inner)
                if result is not HOLD:
                    if held and result.error is not None:
                        result.held_seconds = held
                    return result
                permit = None

        def call(message: InboundMessage) -> Awaitable[HandlingResult]:
            permit = gate.enter(message.envelope.source, waiting_room.handling_seconds)
            return run(message, permit)

        return call

    return stage


async def _run(
    message: InboundMessage, permit: Permit, gate: DependencyGate, inner: InboundHandler
) -> HandlingResult:
    message.permit = permit
    try:
        return await inner(message)
    finally:
        if message.permit is not None:  # the message did not begin, for example without a slot
            message.permit = None
            gate.withdraw(permit)


class _WaitingRoom:
    """The place of one endpoint's messages that wait for a permit."""

    def __init__(self, state: EndpointState, gate: DependencyGate, tier: str) -> None:
        self._in_flight, self._gate, self._tier = state.in_flight, gate, tier
        self._hold_seconds = hold_seconds_for(
            state.endpoint,
            state.runtime.settings.consumer_timeout,
            is_requested=state.runtime.transport.supports_consumer_timeout(state.spec.queue),
        )
        self.handling_seconds = (state.endpoint.timeout or 0.0) + SETTLING_SECONDS
        """Maximum seconds of one handling, after which a probe counts as lost."""

    async def wait(
        self, message: InboundMessage, arrival: int, arrived: float
    ) -> Permit | HandlingResult:
        """Wait for a permit. Return the result of a message that receives none."""
        end = await self._end_of_hold(message, arrival, arrived)
        if end is HoldEnd.REQUEUE:
            return REQUEUE
        if not any(delivery.is_open for delivery in message.deliveries):
            if end is not HoldEnd.RETURN:
                self._gate.withdraw(end)
            return NO_ACTION  # the broker has taken the message back, and delivers it again
        if end is HoldEnd.RETURN:
            self._gate.count_return()
            return _returned(message, self._gate.dependency.name, self._tier)
        return end

    async def _end_of_hold(
        self, message: InboundMessage, arrival: int, arrived: float
    ) -> Permit | HoldEnd:
        in_flight = self._in_flight
        if in_flight.refuses_holds is not None:
            return in_flight.refuses_holds
        if message.candidate is not None:  # other candidates wait until its turn has ended
            return HoldEnd.RETURN
        held = HeldMessage(arrived + self._hold_seconds, message.envelope.source, arrival)
        in_flight.held[held] = None
        try:
            self._gate.hold(held, self.handling_seconds)
            return await held.wait()
        except asyncio.CancelledError:  # of a service that stops; a permit can be granted already
            if held.permit is not None:
                self._gate.withdraw(held.permit)
            raise
        finally:
            del in_flight.held[held]


def _returned(message: InboundMessage, dependency: str, tier: str) -> HandlingResult:
    """Return the result of a message that was not handled, and returns by a retry tier.

    The sender is not authenticated yet, so the result must not be kept for a redelivery.
    """
    problem = f"{message.envelope.type}: the message waits, because {dependency} is down"
    return HandlingResult(
        error=Unavailable(problem, executed="no"),
        unauthorized=True,
        is_counted=True,
        dependency_return=DependencyReturn(dependency=dependency, tier=tier),
    )
