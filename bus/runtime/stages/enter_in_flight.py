"""Registration of a claimed job as a message that is being handled."""

import asyncio

from bus.runtime.claimed_row import row_of
from bus.runtime.endpoint_state import EndpointState
from bus.runtime.inbound_message import (
    NO_ACTION,
    REQUEUE,
    HandlingResult,
    InboundHandler,
    InboundMessage,
    InboundStage,
)

__all__ = ["enter_in_flight"]


def enter_in_flight(state: EndpointState) -> InboundStage:
    """Return the stage that registers a claimed job, so that reports of this process show it.

    Claims are never joined as redeliveries are. Each claim has its own lease, and the feed gives
    the claim of a job that runs here to the running attempt. A job that needs no settlement,
    because another process has it, only ends here. A task that is cancelled because of a request
    to cancel its job has a result, too.
    """
    in_flight = state.in_flight
    claims = 0

    def stage(inner: InboundHandler) -> InboundHandler:
        async def call(message: InboundMessage) -> HandlingResult:
            nonlocal claims
            claims += 1
            message.key = (*message.key[:4], claims)
            in_flight.open[message.key] = message
            try:
                result = await inner(message)
            except asyncio.CancelledError:
                row, task = row_of(message), asyncio.current_task()
                error = None if row is None else row.cancel_error
                if error is None or task is None:
                    raise
                task.uncancel()  # the job is cancelled, and not its worker
                result = HandlingResult(error=error, has_run=True)
            return REQUEUE if result is NO_ACTION else result

        return call

    return stage
