"""Recording of spans by the API of OpenTelemetry.

A failure of a sampler or span processor, which are the application's, never fails a message.
"""

import logging
from importlib.metadata import PackageNotFoundError, version

from opentelemetry import trace
from opentelemetry.context import Context, attach

from bus.messaging.context import correlation_of, current
from bus.messaging.envelope import Envelope
from bus.messaging.trace_context import ATTEMPT_TRACEPARENT
from bus.middleware.spans.active_span import ActiveSpan
from bus.middleware.spans.carrier import NO_CONTEXT, Carrier
from bus.middleware.spans.conventions import (
    SCHEMA_URL,
    Conventions,
    SpanTemplate,
    message_attributes,
)

__all__ = ["Recorder", "active_ids", "find_recorder"]

log = logging.getLogger("bus.spans")

LINK = "trunkline.link"
"""Attribute of a link: `send`, or `previous_attempt`."""
KINDS = {kind.name: kind for kind in trace.SpanKind}
SAMPLED = trace.TraceFlags.SAMPLED
FOLLOWS_PARENT = (
    "ParentBased{",
    "remoteParentNotSampled:AlwaysOffSampler",
    "localParentNotSampled:AlwaysOffSampler",
)
"""Parts of the description of a sampler that never samples a child of an unsampled span."""


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
        self._follows_parent = _follows_parent(tracer)
        self._has_failed = False

    def start_sending(self, envelope: Envelope) -> tuple[ActiveSpan | None, Envelope]:
        """Start the span of a message that is sent now.

        Its parent is the active span. In a handler without an active span, the parent is the span
        that sent the handled message.

        Returns:
            The span, or None if it is not recorded. And the message with the context of the span.
        """
        parent = None
        active = trace.get_current_span()
        if not active.get_span_context().is_valid:
            cause = current.get()
            if cause is not None:
                parent = self._carrier.read(cause.envelope)
                active = trace.get_current_span(parent)
        template = self._conventions.sending(envelope.role, envelope.type)
        span = self._child(active) or self._start(template, parent, [])
        if span is None:
            return None, envelope
        sent = self._carrier.write(envelope, span, parent)
        if not span.is_recording():
            return None, sent
        span.set_attributes(message_attributes(envelope, correlation_of(envelope)))
        context = trace.set_span_in_context(span, parent)
        return ActiveSpan(span, template.kind, context, sent.traceparent), sent

    def start_handling(self, envelope: Envelope, template: SpanTemplate) -> ActiveSpan | None:
        """Start the span of one attempt to handle a message.

        The span of a request is a child of the caller's span. The span of an event or job starts a
        new trace, and has a link to the span that sent the message. So a trace ends. After a
        failed attempt, a second link leads to the span of that attempt.

        If the span is not recorded, its context is active until the task of the message ends, so
        that the spans in the handler are not recorded either.

        Returns:
            The span, or None if it is not recorded.
        """
        links: list[trace.Link] = []
        if template.kind == "SERVER":
            parent = self._carrier.read(envelope)
            span = self._child(trace.get_current_span(parent))
            if envelope.type != template.type:
                template = self._conventions.unknown_request(envelope.type)
        else:
            parent, span, links = NO_CONTEXT, None, self._links(envelope)
        span = span or self._start(template, parent, links)
        if span is None:
            return None
        context = trace.set_span_in_context(span, NO_CONTEXT)
        if not span.is_recording():
            attach(context)
            return None
        correlation_id = envelope.correlation_id or envelope.id
        span.set_attributes(message_attributes(envelope, correlation_id))
        traceparent = self._carrier.write(envelope, span, context).traceparent
        return ActiveSpan(span, template.kind, context, traceparent)

    def _child(self, parent: trace.Span) -> trace.Span | None:
        """Return `parent` itself if the sampler would certainly not sample a child of it.

        The tracer would take several microseconds to create a span that records nothing.
        """
        context = parent.get_span_context()
        if self._follows_parent and context.is_valid and not context.trace_flags & SAMPLED:
            return trace.NonRecordingSpan(context) if parent.is_recording() else parent
        return None

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
        contexts = {"send": self._carrier.read(envelope)}
        if isinstance(previous, str):
            attempt = envelope.replace(traceparent=previous, tracestate=None)
            contexts["previous_attempt"] = self._carrier.read(attempt)
        linked = {
            kind: trace.get_current_span(context).get_span_context()
            for kind, context in contexts.items()
        }
        return [trace.Link(each, {LINK: kind}) for kind, each in linked.items() if each.is_valid]


def _follows_parent(tracer: trace.Tracer) -> bool:
    """Return True if the tracer never samples a child of a span that is not sampled."""
    try:
        description = str(tracer.sampler.get_description())  # type: ignore[attr-defined]  # of the SDK
    except Exception:  # noqa: BLE001 - another implementation, or a sampler of the application
        return False
    return description.startswith(FOLLOWS_PARENT[0]) and all(
        part in description for part in FOLLOWS_PARENT[1:]
    )


def _trunkline_version() -> str | None:
    try:
        return version("trunkline")
    except PackageNotFoundError:  # the code runs from a checkout
        return None
