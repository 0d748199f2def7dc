"""Correlation, causation and W3C trace context (https://www.w3.org/TR/trace-context/) of what is sent."""

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
"""The one flag of version 00; all others are sent as zero."""


def tracing() -> Middleware:
    """What is sent while handling a message takes over its correlation id and trace, and names it as its cause.

    What nothing caused starts a trace, and its own id is the correlation id of all that follows, unless
    `bus.messaging.context.correlated` has set one.
    """

    def layer(inner: Handler) -> Handler:
        async def call(envelope: Envelope) -> Envelope | None:
            context = current.get()
            return await inner(_caused(envelope, context.envelope) if context else _first(envelope))

        return call

    return layer


def _caused(envelope: Envelope, cause: Envelope) -> Envelope:
    trace = _trace(cause.traceparent)
    return envelope.replace(
        correlation_id=cause.correlation_id or cause.id,
        causation_id=cause.id,
        traceparent=_span(*trace) if trace else _new(),
        tracestate=cause.tracestate if trace else None,
    )


def _first(envelope: Envelope) -> Envelope:
    return envelope.replace(
        correlation_id=envelope.correlation_id or correlation.get() or envelope.id,
        traceparent=_new(),
    )


def _trace(parent: str | None) -> tuple[str, int] | None:
    """The trace's id and flags; None where `parent` is no traceparent: then it and its tracestate are ignored, as the standard asks.

    A later version is read as this one, and may have more behind the flags.
    """
    match = TRACEPARENT.fullmatch(parent) if parent else None
    if match is None or (match[1] == "00" and match[4]):
        return None
    return match[2], int(match[3], 16) & SAMPLED


def _new() -> str:
    return _span(trace_id(), SAMPLED)


def _span(trace: str, flags: int) -> str:
    return f"00-{trace}-{span_id()}-{flags:02x}"
