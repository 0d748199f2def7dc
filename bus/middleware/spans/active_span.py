"""A span of OpenTelemetry that is recorded for one message."""

import asyncio
import logging
from contextvars import Token

from opentelemetry import trace
from opentelemetry.context import Context, attach, detach

from bus.errors import BusError
from bus.messaging.failure_location import failure_location
from bus.messaging.outcomes import OK, outcome_of
from bus.messaging.trace_context import recorded_trace
from bus.middleware.spans.conventions import SpanKind, is_server_error

__all__ = ["ActiveSpan"]

log = logging.getLogger("bus.spans")

RPC_KINDS = frozenset({"CLIENT", "SERVER"})
HANDLING_KINDS = frozenset({"SERVER", "CONSUMER"})


class ActiveSpan:
    """A span that is being recorded. It is active in the current task from `begin` to `end`."""

    __slots__ = ("_attached", "_context", "_exemplar", "_kind", "_span", "traceparent")

    def __init__(
        self, span: trace.Span, kind: SpanKind, context: Context, traceparent: str | None
    ) -> None:
        """Hold a span that was started.

        Args:
            span: The span.
            kind: The kind of the span.
            context: The context with the span.
            traceparent: The context of the span, as messages carry it.
        """
        self._span = span
        self._kind = kind
        self._context = context
        self.traceparent = traceparent
        self._attached: Token[Context] | None = None
        self._exemplar: Token[str | None] | None = None

    def begin(self) -> None:
        """Activate the span."""
        trace_id = trace.format_trace_id(self._span.get_span_context().trace_id)
        self._exemplar = recorded_trace.set(trace_id)
        self._attached = attach(self._context)

    def add_resend(self, error: BusError) -> None:
        """Record that the message is sent again after this error."""
        self._span.add_event("trunkline.resend", {"error.type": error.code})

    def succeed(self) -> None:
        """Record a success."""
        if self._kind in RPC_KINDS:
            self._span.set_attribute("rpc.status_code", OK)

    def fail(self, error: BaseException) -> None:
        """Record the code and the place of an error, without its text.

        The span of a service has no error status if the caller is at fault, as with gRPC.
        """
        code = outcome_of(error)
        if self._kind in RPC_KINDS:
            self._span.set_attribute("rpc.status_code", code)
        if self._kind == "SERVER" and not is_server_error(code):
            return
        self._span.set_attribute("error.type", code)
        self._span.set_status(trace.StatusCode.ERROR)
        if self._kind in HANDLING_KINDS and not isinstance(error, asyncio.CancelledError):
            where = failure_location(error)
            if where is not None:
                self._span.set_attribute("trunkline.error.where", where)

    def end(self) -> None:
        """End the span, and activate the span that was active before."""
        if self._attached is not None and self._exemplar is not None:
            detach(self._attached)
            recorded_trace.reset(self._exemplar)
        try:
            self._span.end()
        except Exception as error:  # noqa: BLE001 - a span processor of the application
            log.debug("a span could not be ended: %s", type(error).__name__)
