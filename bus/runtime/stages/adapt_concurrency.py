"""Adaptation of an endpoint's concurrency limit to the duration of its handler."""

from bus.errors import DeadlineExceeded, ResourceExhausted, code_of
from bus.messaging.timers import loop_time
from bus.runtime.endpoint_state import EndpointState
from bus.runtime.inbound_message import (
    HandlingResult,
    InboundHandler,
    InboundMessage,
    InboundStage,
    pass_through,
)

__all__ = ["adapt_concurrency"]

DROP_CODES = frozenset({DeadlineExceeded.code, ResourceExhausted.code})
"""Codes of errors that show too many messages at a time: here, or in a service that was called."""


def adapt_concurrency(state: EndpointState) -> InboundStage:
    """Return the stage that reports each attempt to the adaptive limit of the endpoint.

    An endpoint with a fixed limit does not have this stage. Most errors are reported without their
    duration, because a handler that fails early tells nothing about its usual duration.
    """
    adaptive, slots = state.adaptive, state.slots
    if adaptive is None:
        return pass_through

    def stage(inner: InboundHandler) -> InboundHandler:
        async def call(message: InboundMessage) -> HandlingResult:
            started = loop_time()
            result = await inner(message)
            if result.error is None:
                adaptive.succeeded(loop_time() - started, slots.used)
            elif _is_drop(result.error):
                adaptive.dropped(slots.used)
            else:
                adaptive.failed()
            if adaptive.limit != slots.limit:
                slots.resize(adaptive.limit)
            return result

        return call

    return stage


def _is_drop(error: BaseException) -> bool:
    return isinstance(error, TimeoutError) or code_of(error) in DROP_CODES
