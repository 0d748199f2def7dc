"""Correlation, causation and W3C trace context (https://www.w3.org/TR/trace-context/) of what is sent."""

import re
import secrets

from bus.context import correlation, current
from bus.envelope import Envelope
from bus.handler import Handler, Middleware

__all__ = ["tracing"]

TRACEPARENT = re.compile(r"00-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-([0-9a-f]{2})")
SAMPLED = "01"


def tracing() -> Middleware:
    """What is sent while handling a message takes over its correlation id and trace, and names it as its cause.

    What nothing caused starts a trace, and its own id is the correlation id of all that follows, unless
    `bus.context.correlated` has set one.
    """

    def layer(inner: Handler) -> Handler:
        async def call(envelope: Envelope) -> Envelope | None:
            context = current.get()
            return await inner(_caused(envelope, context.envelope) if context else _first(envelope))

        return call

    return layer


def _caused(envelope: Envelope, cause: Envelope) -> Envelope:
    return envelope.evolve(
        correlation_id=cause.correlation_id or cause.id,
        causation_id=cause.id,
        traceparent=_child(cause.traceparent),
        tracestate=cause.tracestate,
    )


def _first(envelope: Envelope) -> Envelope:
    return envelope.evolve(correlation_id=envelope.correlation_id or correlation.get() or envelope.id, traceparent=_child(None))


def _child(parent: str | None) -> str:
    """A span below `parent`; a new trace where there is none or it is not one (then it is ignored, as the standard asks)."""
    match = TRACEPARENT.fullmatch(parent) if parent else None
    trace, flags = match.groups() if match else (secrets.token_hex(16), SAMPLED)
    return f"00-{trace}-{secrets.token_hex(8)}-{flags}"
