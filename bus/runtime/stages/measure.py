"""Measurement of each attempt to handle a message: its outcome, its duration and its delay."""

from time import perf_counter

from bus.runtime.endpoint_state import EndpointState
from bus.runtime.inbound_message import (
    HandlingResult,
    InboundHandler,
    InboundMessage,
    InboundStage,
    pass_through,
)

__all__ = ["measure"]


def measure(state: EndpointState) -> InboundStage:
    """Return the stage that reports each attempt to the meter and the history.

    It is a stage and not a middleware, so that a user's own list of middlewares cannot remove it.
    The settler reports the messages that an earlier stage refuses.
    """
    measures = state.measures
    if measures is None:
        return pass_through

    def stage(inner: InboundHandler) -> InboundHandler:
        async def call(message: InboundMessage) -> HandlingResult:
            started = message.started = perf_counter()
            try:
                result = await inner(message)
            except BaseException as error:  # such as the cancellation of a service that stops
                message.started = None
                measures.failed(message, error, perf_counter() - started)
                raise
            message.started = None
            if result.error is None:
                measures.succeeded(message, perf_counter() - started)
            else:
                measures.failed(message, result.error, perf_counter() - started)
                result.is_counted = True
            return result

        return call

    return stage
