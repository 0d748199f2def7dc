"""Tracing: correlation, causation and W3C Trace Context of messages that are sent.

The format is specified in https://www.w3.org/TR/trace-context/.
"""

import re

from bus.messaging.context import correlation, current
from bus.messaging.envelope import Envelope
from bus.messaging.handler import Handler, Middleware
from bus.messaging.ids import random_hex_factory

__all__ = ["tracing"]

TRACEPARENT = re.compile(
    r"(?!ff)([0-9a-f]{2})-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-([0-9a-f]{2})(-.*)?"
)
trace_id, span_id = random_hex_factory(16), random_hex_factory(8)
SAMPLED = 1
"""Trace flag `sampled`, the only flag in version 00. The bus sends all other bits as zero."""


def tracing() -> Middleware:
    """Set the correlation id, the causation id and the trace of each message.

    A message that a handler sends inherits the correlation id and the trace of the handled message.
    Its causation id is the id of the handled message. A message that is sent outside a handler
    starts a new trace. Its correlation id is its own id, unless `bus.correlated` has set another
    id.
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
    trace = _parse_traceparent(cause.traceparent)
    return envelope.replace(
        correlation_id=cause.correlation_id or cause.id,
        causation_id=cause.id,
        traceparent=_new_span(*trace) if trace else _new_trace(),
        tracestate=cause.tracestate if trace else None,
    )


def _start_trace(envelope: Envelope) -> Envelope:
    return envelope.replace(
        correlation_id=envelope.correlation_id or correlation.get() or envelope.id,
        traceparent=_new_trace(),
    )


def _parse_traceparent(parent: str | None) -> tuple[str, int] | None:
    """Return the trace's id and flags. Return None if `parent` is not a valid traceparent.

    If `parent` is not valid, the caller also ignores the tracestate, as the standard requires. A
    later version can have more fields after the flags. It is parsed as version 00.
    """
    match = TRACEPARENT.fullmatch(parent) if parent else None
    if match is None or (match[1] == "00" and match[4]):
        return None
    return match[2], int(match[3], 16) & SAMPLED


def _new_trace() -> str:
    return _new_span(trace_id(), SAMPLED)


def _new_span(trace: str, flags: int) -> str:
    return f"00-{trace}-{span_id()}-{flags:02x}"
