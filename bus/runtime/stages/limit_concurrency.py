"""Limit of the number of messages that one endpoint runs at a time."""

from collections.abc import Awaitable

from bus.runtime.endpoint_state import EndpointState
from bus.runtime.inbound_message import (
    REQUEUE,
    HandlingResult,
    InboundHandler,
    InboundMessage,
    InboundStage,
)

__all__ = ["limit_concurrency"]


def limit_concurrency(state: EndpointState) -> InboundStage:
    """Return the stage that gives each message a slot until it is settled.

    The prefetch has the same value, but does not count all messages. The prefetch leaves out
    messages that are acked before they run, and deliveries of a consumer that is being replaced.
    """
    slots = state.slots

    def stage(inner: InboundHandler) -> InboundHandler:
        async def wait(message: InboundMessage) -> HandlingResult:
            if not await slots.acquire():
                return REQUEUE
            message.slots = slots
            return await inner(message)

        def call(message: InboundMessage) -> Awaitable[HandlingResult]:
            free_since = slots.free_since
            if not slots.try_acquire():
                return wait(message)
            message.slots, message.free_since = slots, free_since
            return inner(message)

        return call

    return stage
