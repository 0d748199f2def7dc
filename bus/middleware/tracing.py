"""Tracing: correlation, causation and W3C Trace Context of messages that are sent.

The format is specified in https://www.w3.org/TR/trace-context-2/.
"""

from bus.messaging.context import correlation, current
from bus.messaging.envelope import Envelope
from bus.messaging.handler import Handler, Middleware
from bus.messaging.trace_context import (
    child_traceparent,
    new_traceparent,
    valid_tracestate,
)

__all__ = ["tracing"]


def tracing() -> Middleware:
    """Set the correlation id, the causation id and the trace of each message.

    A message that a handler sends inherits the correlation id and the trace of the handled message.
    Its causation id is the id of the handled message. A message that is sent outside a handler
    starts a new trace. Its correlation id is its own id, unless `bus.correlated` has set another
    id. A message that already has a traceparent keeps it: an outer layer has recorded a span.
    """

    def layer(inner: Handler) -> Handler:
        async def call(envelope: Envelope) -> Envelope | None:
            context = current.get()
            return await inner(
                _continue_trace(envelope, context.envelope) if context else _start_trace(envelope)
            )

        return call

    return layer


def _continue_trace(envelope: Envelope, cause: Envelope) -> Envelope:
    correlation_id = cause.correlation_id or cause.id
    if envelope.traceparent is not None:
        return envelope.replace(correlation_id=correlation_id, causation_id=cause.id)
    child = child_traceparent(cause.traceparent)
    return envelope.replace(
        correlation_id=correlation_id,
        causation_id=cause.id,
        traceparent=child or new_traceparent(),
        tracestate=valid_tracestate(cause.tracestate) if child and cause.tracestate else None,
    )


def _start_trace(envelope: Envelope) -> Envelope:
    return envelope.replace(
        correlation_id=envelope.correlation_id or correlation.get() or envelope.id,
        traceparent=envelope.traceparent or new_traceparent(),
    )
