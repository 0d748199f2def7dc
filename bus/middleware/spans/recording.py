"""Recording of spans by the API of OpenTelemetry.

A failure of a sampler, propagator or span processor, which are the application's, never fails a
message.
"""

import logging
from importlib.metadata import PackageNotFoundError, version

from opentelemetry import trace
from opentelemetry.context import Context, attach, get_current

from bus.messaging.context import correlation_of, current
from bus.messaging.envelope import Envelope
from bus.messaging.trace_context import ATTEMPT_TRACEPARENT, unsampled_traceparent
from bus.middleware.spans.active_span import ActiveSpan
from bus.middleware.spans.carrier import NO_CONTEXT, Carrier, UnsampledSpan
from bus.middleware.spans.conventions import (
    SCHEMA_URL,
    Conventions,
    SpanTemplate,
    message_attributes,
)
from bus.middleware.spans.known_sampler import KnownSampler, prepared

__all__ = ["Recorder", "active_ids", "find_recorder"]

log = logging.getLogger("bus.spans")

LINK = "trunkline.link"
"""Attribute of a link: `send`, or `previous_attempt`."""
KINDS = {kind.name: kind for kind in trace.SpanKind}


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
        self._carrier = Carrier()
        self._sampler = KnownSampler(tracer)
        self._has_failed = False

    def start_sending(self, envelope: Envelope) -> tuple[ActiveSpan | None, Envelope]:
        """Start the span of a message that is sent now.

        Its parent is the active span. In a handler without an active span, the parent is the span
        that sent the handled message.

        Returns:
            The span, or None if it is not recorded. And the message with the context of the span.
        """
        parent = None
        # Outside of handlers and spans the context is empty, which is faster to see than its span.
        has_parent = bool(get_current()) and trace.get_current_span().get_span_context().is_valid
        if not has_parent and (cause := current.get()) is not None:
            parent = self._carrier.read(cause.envelope)
            has_parent = trace.get_current_span(parent).get_span_context().is_valid
        root = None if has_parent else self._sampler.new_root()
        if (
            root is not None
            and not self._sampler.samples(root)
            and self._carrier.custom_propagator() is None
        ):
            return None, envelope.replace(traceparent=unsampled_traceparent(root))
        template = self._conventions.sending(envelope.role, envelope.type)
        span = self._new_span(template, envelope, parent, root)
        if span is None:
            return None, envelope
        sent = self._carrier.write(envelope, span, parent)
        if not span.is_recording():
            return None, sent
        context = trace.set_span_in_context(span, parent)
        return ActiveSpan(span, template.kind, context, sent.traceparent), sent

    def start_handling(self, envelope: Envelope, template: SpanTemplate) -> ActiveSpan | None:
        """Start the span of one attempt to handle a message.

        The span of a request is a child of the caller's span. The span of an event or job starts a
        new trace, and has a link to the span that sent the message. So a trace ends. After a
        failed attempt, a second link leads to the span of that attempt.

        If the span is not recorded, its context is active until the task of the message ends. So
        the spans in the handler are not recorded either.

        Returns:
            The span, or None if it is not recorded.
        """
        if template.kind == "SERVER":
            if self._sampler.follows_parent:
                unsampled = self._carrier.read_unsampled(envelope)
                if unsampled is not None:
                    attach(unsampled)
                    return None
            parent = self._carrier.read(envelope)
            if envelope.type != template.type:
                template = self._conventions.unknown_request(envelope.type)
        else:
            parent = NO_CONTEXT
        span = self._new_span(template, envelope, parent, self._sampler.new_root())
        if span is None:
            return None
        context = trace.set_span_in_context(span, NO_CONTEXT)
        if not span.is_recording():
            attach(context)
            return None
        traceparent = self._carrier.write(envelope, span, context).traceparent
        return ActiveSpan(span, template.kind, context, traceparent)

    def _new_span(
        self, template: SpanTemplate, envelope: Envelope, parent: Context | None, root: str | None
    ) -> trace.Span | None:
        """Return a new span, or None if the tracer failed.

        If the sampler certainly does not sample a child, the new span is only the context of the
        parent. If it does not sample a new trace, the new span is only a new context.

        Args:
            template: Template of the span.
            envelope: The message that is sent or handled.
            parent: Context with the parent. None: the current context.
            root: Id of the new trace if there is no parent. None: the tracer chooses and decides.
        """
        above = trace.get_current_span(parent).get_span_context()
        if above.is_valid:
            if self._sampler.drops_child(above):
                return trace.NonRecordingSpan(above)
            return self._start(template, envelope, parent)
        if root is None:
            return self._start(template, envelope, parent)
        if not self._sampler.samples(root):
            return UnsampledSpan(unsampled_traceparent(root), None)
        token = prepared.set(int(root, 16))
        try:
            return self._start(template, envelope, parent)
        finally:
            prepared.reset(token)

    def _start(
        self, template: SpanTemplate, envelope: Envelope, parent: Context | None
    ) -> trace.Span | None:
        is_sent = template.kind in {"CLIENT", "PRODUCER"}
        correlation_id = correlation_of(envelope) if is_sent else envelope.correlation_id
        attributes = message_attributes(envelope, correlation_id or envelope.id)
        try:
            return self._tracer.start_span(
                template.name,
                context=parent,
                kind=KINDS[template.kind],
                attributes={**template.attributes, **attributes},
                links=self._links(envelope) if template.kind == "CONSUMER" else [],
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
        contexts = {"send": self._carrier.read(envelope)}
        if isinstance(previous, str):
            attempt = envelope.replace(traceparent=previous, tracestate=None)
            contexts["previous_attempt"] = self._carrier.read(attempt)
        linked = {
            kind: trace.get_current_span(context).get_span_context()
            for kind, context in contexts.items()
        }
        return [trace.Link(each, {LINK: kind}) for kind, each in linked.items() if each.is_valid]


def _trunkline_version() -> str | None:
    try:
        return version("trunkline")
    except PackageNotFoundError:  # the code runs from a checkout
        return None
