"""Recording of a span for each attempt to handle a message."""

from collections.abc import Awaitable
from typing import TYPE_CHECKING

from bus.middleware.spans import HandledBy
from bus.runtime.endpoint_state import EndpointState
from bus.runtime.inbound_message import (
    HandlingResult,
    InboundHandler,
    InboundMessage,
    InboundStage,
    pass_through,
)

if TYPE_CHECKING:
    from bus.middleware.spans.active_span import ActiveSpan

__all__ = ["record_span"]


def record_span(state: EndpointState) -> InboundStage:
    """Return the stage that records a span for each attempt, and activates it in the handler.

    Without OpenTelemetry the stage is left out. A message that an earlier stage refuses has no
    span, because any client of the broker can write its trace context.
    """
    source = state.runtime.spans
    if source is None:
        return pass_through
    endpoint = state.endpoint
    template = source.conventions.handling(
        HandledBy(
            type=endpoint.contract.type,
            kind=endpoint.contract.kind,
            queue=endpoint.queue,
            subscription=endpoint.subscription,
        )
    )

    def stage(inner: InboundHandler) -> InboundHandler:
        def call(message: InboundMessage) -> Awaitable[HandlingResult]:
            recorder = source.recorder()
            if recorder is None:
                return inner(message)
            span = recorder.start_handling(message.envelope, template)
            return inner(message) if span is None else record(span, message)

        async def record(span: "ActiveSpan", message: InboundMessage) -> HandlingResult:
            span.begin()
            try:
                result = await inner(message)
                result.traceparent = span.traceparent
                if result.error is None:
                    span.succeed()
                else:
                    span.fail(result.error)
            except BaseException as error:
                span.fail(error)
                raise
            else:
                return result
            finally:
                span.end()

        return call

    return stage
