"""Recording of spans by the API of OpenTelemetry.

Only this module imports OpenTelemetry. A failure of a sampler or span processor, which are the
application's, never fails a message.
"""

import asyncio
import logging
from contextvars import Token
from importlib.metadata import PackageNotFoundError, version

from opentelemetry import trace
from opentelemetry.context import Context, attach, detach
from opentelemetry.propagate import get_global_textmap
from opentelemetry.propagators.textmap import TextMapPropagator
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from bus.errors import BusError, Cancelled, code_of
from bus.messaging.context import correlation_of, current
from bus.messaging.envelope import Envelope
from bus.messaging.failure_location import failure_location
from bus.messaging.trace_context import (
    ATTEMPT_TRACEPARENT,
    recorded_trace,
    shorten_tracestate,
    valid_tracestate,
)
from bus.middleware.spans.conventions import (
    SCHEMA_URL,
    Conventions,
    SpanTemplate,
    is_server_error,
    message_attributes,
)

__all__ = ["ActiveSpan", "Recorder", "active_ids", "find_recorder"]

log = logging.getLogger("bus.spans")

TRACEPARENT, TRACESTATE = "traceparent", "tracestate"
LINK = "trunkline.link"
"""Attribute of a link: `send`, or `previous_attempt`."""
W3C = TraceContextTextMapPropagator()
KINDS = {kind.name: kind for kind in trace.SpanKind}
NO_CONTEXT = Context()


def find_recorder(conventions: Conventions) -> "Recorder | None":
    """Return a recorder, or None if the application has set no tracer provider yet."""
    provider = trace.get_tracer_provider()
    if isinstance(provider, trace.ProxyTracerProvider):
        return None
    return Recorder(
        provider.get_tracer("trunkline", _trunkline_version(), schema_url=SCHEMA_URL), conventions
    )


def active_ids() -> tuple[str, str] | None:
    """Return the trace id and the span id of the active span in hex, or None without a span."""
    context = trace.get_current_span().get_span_context()
    if not context.is_valid:
        return None
    return trace.format_trace_id(context.trace_id), trace.format_span_id(context.span_id)


class Recorder:
    """Starts the spans of one bus."""

    def __init__(self, tracer: trace.Tracer, conventions: Conventions) -> None:
        self._tracer = tracer
        self._conventions = conventions
        self._global: TextMapPropagator | None = None
        self._propagator: TextMapPropagator = W3C
        self._has_failed = False

    def start_sending(self, envelope: Envelope) -> "ActiveSpan | None":
        """Start and activate the span of a message that is sent now.

        Its parent is the active span. In a handler without an active span, the parent is the span
        that sent the handled message.

        Returns:
            The span, or None if the tracer failed.
        """
        parent = None
        cause = current.get()
        if cause is not None and not trace.get_current_span().get_span_context().is_valid:
            parent = self._extract(cause.envelope)
        template = self._conventions.sending(envelope.role, envelope.type)
        span = self._start(template, parent, [])
        if span is None:
            return None
        if span.is_recording():
            span.set_attributes(message_attributes(envelope, correlation_of(envelope)))
        return ActiveSpan(span, template, parent, self._current_propagator())

    def start_handling(self, envelope: Envelope, template: SpanTemplate) -> "ActiveSpan | None":
        """Start and activate the span of one attempt to handle a message.

        The span of a request is a child of the caller's span. The span of an event or job starts a
        new trace, and has a link to the span that sent the message. So a trace ends. After a
        failed attempt, a second link leads to the span of that attempt.

        Returns:
            The span, or None if the tracer failed.
        """
        links: list[trace.Link] = []
        if template.kind == "SERVER":
            parent = self._extract(envelope)
            if envelope.type != template.type:
                template = self._conventions.unknown_request(envelope.type)
        else:
            parent = NO_CONTEXT
            links = self._links(envelope)
        span = self._start(template, parent, links)
        if span is None:
            return None
        if span.is_recording():
            correlation_id = envelope.correlation_id or envelope.id
            span.set_attributes(message_attributes(envelope, correlation_id))
        return ActiveSpan(span, template, NO_CONTEXT, self._current_propagator())

    def _start(
        self, template: SpanTemplate, parent: Context | None, links: list[trace.Link]
    ) -> trace.Span | None:
        try:
            return self._tracer.start_span(
                template.name,
                context=parent,
                kind=KINDS[template.kind],
                attributes=template.attributes,
                links=links,
                record_exception=False,
                set_status_on_exception=False,
            )
        except Exception as error:  # noqa: BLE001 - the application's sampler or span processor
            if not self._has_failed:
                self._has_failed = True
                log.warning(
                    "a span could not be started (%s), so messages have no span. Check the "
                    "sampler and the span processors of the tracer provider. This line is logged "
                    "once",
                    type(error).__name__,
                )
            return None

    def _links(self, envelope: Envelope) -> list[trace.Link]:
        previous = envelope.headers.get(ATTEMPT_TRACEPARENT)
        contexts = {"send": self._extract(envelope)}
        if isinstance(previous, str):
            contexts["previous_attempt"] = self._extract(envelope.replace(traceparent=previous))
        linked = {
            kind: trace.get_current_span(context).get_span_context()
            for kind, context in contexts.items()
        }
        return [trace.Link(each, {LINK: kind}) for kind, each in linked.items() if each.is_valid]

    def _extract(self, envelope: Envelope) -> Context:
        """Return a context with the span that sent a message, or an empty one if it has none."""
        if not envelope.traceparent:
            return NO_CONTEXT
        carrier = {TRACEPARENT: envelope.traceparent}
        # OpenTelemetry would log each member that is invalid, with its text.
        if envelope.tracestate and valid_tracestate(envelope.tracestate):
            carrier[TRACESTATE] = envelope.tracestate
        return self._current_propagator().extract(carrier, NO_CONTEXT)

    def _current_propagator(self) -> TextMapPropagator:
        """Return the application's propagator, or W3C's if the former has no `traceparent`."""
        chosen = get_global_textmap()
        if chosen is not self._global:
            self._global = chosen
            self._propagator = chosen if TRACEPARENT in chosen.fields else W3C
        return self._propagator


class ActiveSpan:
    """A span that was started, and is active in the current task until `end`."""

    __slots__ = ("_context", "_exemplar", "_propagator", "_span", "_template", "_token")

    def __init__(
        self,
        span: trace.Span,
        template: SpanTemplate,
        base: Context | None,
        propagator: TextMapPropagator,
    ) -> None:
        """Activate a span.

        Args:
            span: The span.
            template: The template of the span.
            base: Context to which the span is added. None: the current context.
            propagator: Propagator that writes the context of the span.
        """
        self._span = span
        self._template = template
        self._propagator = propagator
        self._context = trace.set_span_in_context(span, base)
        self._token = attach(self._context)
        self._exemplar: Token[str | None] | None = None
        if span.is_recording():
            trace_id = trace.format_trace_id(span.get_span_context().trace_id)
            self._exemplar = recorded_trace.set(trace_id)

    @property
    def traceparent(self) -> str | None:
        """The context of the span as a traceparent, or None if the span has no context."""
        return self._carrier().get(TRACEPARENT)

    def inject(self, envelope: Envelope) -> Envelope:
        """Return the message with the context of this span. Baggage is never added."""
        carrier = self._carrier()
        return envelope.replace(
            traceparent=carrier.get(TRACEPARENT),
            tracestate=shorten_tracestate(carrier.get(TRACESTATE)),
        )

    def _carrier(self) -> dict[str, str]:
        carrier: dict[str, str] = {}
        self._propagator.inject(carrier, self._context)
        return carrier

    def add_resend(self, error: BusError) -> None:
        """Record that the message is sent again after this error."""
        self._span.add_event("trunkline.resend", {"error.type": error.code})

    def succeed(self) -> None:
        """Record a success."""
        if self._span.is_recording() and self._template.kind in {"CLIENT", "SERVER"}:
            self._span.set_attribute("rpc.status_code", "ok")

    def fail(self, error: BaseException) -> None:
        """Record the code and the place of an error, without its text.

        The span of a service has no error status if the caller is at fault, as with gRPC.
        """
        if not self._span.is_recording():
            return
        is_cancelled = isinstance(error, asyncio.CancelledError)
        code, kind = Cancelled.code if is_cancelled else code_of(error), self._template.kind
        if kind in {"CLIENT", "SERVER"}:
            self._span.set_attribute("rpc.status_code", code)
        if kind == "SERVER" and not is_server_error(code):
            return
        self._span.set_attribute("error.type", code)
        self._span.set_status(trace.StatusCode.ERROR)
        where = None if is_cancelled else failure_location(error)
        if where is not None and kind in {"SERVER", "CONSUMER"}:
            self._span.set_attribute("trunkline.error.where", where)

    def end(self) -> None:
        """End the span, and activate the span that was active before."""
        if self._exemplar is not None:
            recorded_trace.reset(self._exemplar)
        detach(self._token)
        try:
            self._span.end()
        except Exception as error:  # noqa: BLE001 - as in `Recorder._start`
            log.debug("a span could not be ended: %s", type(error).__name__)


def _trunkline_version() -> str | None:
    try:
        return version("trunkline")
    except PackageNotFoundError:  # the code runs from a checkout
        return None
