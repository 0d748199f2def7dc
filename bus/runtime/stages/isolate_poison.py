"""Isolation of messages that may have crashed an earlier process (ADR 0017)."""

from collections.abc import Awaitable

from bus.errors import ProcessLost
from bus.runtime.endpoint_state import EndpointState
from bus.runtime.inbound_message import (
    REQUEUE,
    HandlingResult,
    InboundHandler,
    InboundMessage,
    InboundStage,
    pass_through,
)
from bus.runtime.poison_isolation import (
    POISON_AFTER_DELIVERIES,
    PoisonCandidate,
    TurnQueue,
    delivery_count,
)

__all__ = ["isolate_poison"]


def isolate_poison(state: EndpointState) -> InboundStage:
    """Return the stage that runs poison candidates alone.

    A message with too many lost deliveries is not run again. It fails with `ProcessLost`. A request
    that runs at most once needs no isolation, because it is acked before its handler starts.
    """
    if state.runs_at_most_once:
        return pass_through
    in_flight, limit = state.in_flight, state.delivery_limit

    def stage(inner: InboundHandler) -> InboundHandler:
        async def wait_for_turn(
            message: InboundMessage, turns: TurnQueue, losses: int
        ) -> HandlingResult:
            if in_flight.is_stopping:
                return REQUEUE
            candidate = PoisonCandidate(
                queue=state.spec.queue.name, id=message.envelope.id, losses=losses
            )
            message.candidate = candidate
            in_flight.defer()
            turns.add(candidate)
            try:
                granted = await candidate.wait_turn()
            finally:
                turns.discard(candidate)
            return await inner(message) if granted else REQUEUE

        def call(message: InboundMessage) -> Awaitable[HandlingResult]:
            delivery = message.deliveries[0]
            if not delivery.redelivered or in_flight.remembers(message):
                return inner(message)
            losses = delivery_count(delivery) if state.tracks_delivery_count else None
            if losses is None:
                return wait_for_turn(message, state.serial, 0)
            if losses >= limit:
                # The sender is not authenticated yet, so the result is kept in this message and not
                # by its key. A genuine message with the same sender and id must not receive it.
                error = _process_lost(message, losses)
                message.result = HandlingResult(error=error, has_run=True)
            elif losses >= POISON_AFTER_DELIVERIES:
                return wait_for_turn(message, state.candidates, losses)
            return inner(message)

        return call

    return stage


def _process_lost(message: InboundMessage, losses: int) -> ProcessLost:
    return ProcessLost(
        f"{message.envelope.type}: the process that handled the message ended, or lost its "
        f"connection, {losses} times"
    )
