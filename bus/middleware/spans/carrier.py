"""Trace context of a message, between its two headers and OpenTelemetry's context."""

import logging

from opentelemetry import trace
from opentelemetry.baggage.propagation import W3CBaggagePropagator
from opentelemetry.context import Context
from opentelemetry.propagate import get_global_textmap
from opentelemetry.propagators.textmap import TextMapPropagator
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from typing_extensions import override

from bus.messaging.envelope import Envelope
from bus.messaging.trace_context import (
    is_unsampled,
    parse_traceparent,
    shorten_tracestate,
    valid_tracestate,
)

__all__ = ["NO_CONTEXT", "Carrier", "UnsampledSpan"]

log = logging.getLogger("bus.spans")

NO_CONTEXT = Context()
TRACEPARENT, TRACESTATE = "traceparent", "tracestate"
STANDARD = (TraceContextTextMapPropagator, W3CBaggagePropagator)
FLAGS = [trace.TraceFlags(flags) for flags in range(4)]
NO_STATE = trace.TraceState()


class UnsampledSpan(trace.NonRecordingSpan):
    """A span that is not recorded. It reads its headers only if something needs its ids."""

    def __init__(self, traceparent: str, tracestate: str | None) -> None:
        self._headers = traceparent, tracestate

    @override
    def get_span_context(self) -> trace.SpanContext:
        """Return the context that the headers describe."""
        return _context_of(*self._headers)

    @override
    def __repr__(self) -> str:
        return f"UnsampledSpan({self._headers[0]!r})"


class Carrier:
    """Reader and writer of a message's `traceparent` and `tracestate`.

    The propagator of the application writes and reads them. It sees no other header, so a
    propagator for baggage has no effect. A propagator without `traceparent` is not used, because
    the wire format has only the headers of W3C.

    OpenTelemetry's own propagators follow the same standard as the bus. If the application has no
    other, the bus reads and writes the headers itself, in half of the time.
    """

    def __init__(self) -> None:
        self._seen: TextMapPropagator | None = None
        self._custom: TextMapPropagator | None = None

    def read(self, envelope: Envelope) -> Context:
        """Return a context with the span that sent a message, or an empty one if it has none."""
        text = envelope.traceparent
        if not text:
            return NO_CONTEXT
        propagator = self.custom_propagator()
        if propagator is not None:
            carrier = {TRACEPARENT: text}
            # OpenTelemetry would log each member that is invalid, with its text.
            if state := valid_tracestate(envelope.tracestate):
                carrier[TRACESTATE] = state
            try:
                return propagator.extract(carrier, NO_CONTEXT)
            except Exception as error:  # noqa: BLE001 - the application's propagator
                self._stop_using(propagator, error)
        return trace.set_span_in_context(
            trace.NonRecordingSpan(_context_of(text, envelope.tracestate)), NO_CONTEXT
        )

    def read_unsampled(self, envelope: Envelope) -> Context | None:
        """Return the same as `read` if the trace is valid and not sampled, otherwise None.

        It takes a third of the time, because the ids are read only if something needs them.
        """
        if not is_unsampled(envelope.traceparent) or self.custom_propagator() is not None:
            return None
        span = UnsampledSpan(envelope.traceparent or "", envelope.tracestate)
        return trace.set_span_in_context(span, NO_CONTEXT)

    def write(self, envelope: Envelope, span: trace.Span, base: Context | None) -> Envelope:
        """Return a message with the context of a span.

        Args:
            envelope: The message.
            span: The span.
            base: Context to which the span belongs. None: the current context.
        """
        propagator = self.custom_propagator()
        if propagator is not None:
            carrier: dict[str, str] = {}
            try:
                propagator.inject(carrier, trace.set_span_in_context(span, base))
            except Exception as error:  # noqa: BLE001 - as above
                self._stop_using(propagator, error)
            else:
                short = shorten_tracestate(carrier.get(TRACESTATE))
                return envelope.replace(traceparent=carrier.get(TRACEPARENT), tracestate=short)
        own = span.get_span_context()
        if not own.is_valid:
            return envelope
        state = own.trace_state
        return envelope.replace(
            traceparent=f"00-{own.trace_id:032x}-{own.span_id:016x}-{own.trace_flags:02x}",
            tracestate=shorten_tracestate(state.to_header()) if state else None,
        )

    def _stop_using(self, propagator: TextMapPropagator, error: Exception) -> None:
        self._custom = None
        log.warning(
            "the propagator %s failed (%s), so the bus reads and writes the trace context itself. "
            "Check the propagator of the application",
            type(propagator).__name__,
            type(error).__name__,
        )

    def custom_propagator(self) -> TextMapPropagator | None:
        """Return the propagator of the application, or None if the bus does its work."""
        chosen = get_global_textmap()
        if chosen is not self._seen:
            self._seen = chosen
            # If the attribute does not exist, the propagator is not a standard one, and is called.
            members = getattr(chosen, "_propagators", [chosen])
            is_standard = all(type(each) in STANDARD for each in members)
            self._custom = None if is_standard or TRACEPARENT not in chosen.fields else chosen
        return self._custom


def _context_of(traceparent: str, tracestate: str | None) -> trace.SpanContext:
    parent = parse_traceparent(traceparent)
    if parent is None:
        return trace.INVALID_SPAN_CONTEXT
    state = valid_tracestate(tracestate)
    return trace.SpanContext(
        int(parent.trace_id, 16),
        int(parent.span_id, 16),
        is_remote=True,
        trace_flags=FLAGS[parent.flags],
        trace_state=NO_STATE if state is None else trace.TraceState.from_header([state]),
    )
