"""Decisions of OpenTelemetry's usual sampler, without a call of its tracer.

The tracer takes several microseconds to create a span that records nothing. With a sampling of 1
percent it would do so for 99 of 100 messages. The sampler `ParentBased(TraceIdRatioBased(rate))`
decides by the parent and by the trace id alone, so the recorder can decide first. It calls the
tracer only for spans that are recorded. For every other sampler it always calls the tracer.
"""

import re
from contextvars import ContextVar
from typing import Any, Final

from opentelemetry import trace

from bus.messaging.trace_context import new_trace_id

__all__ = ["KnownSampler", "prepared"]

DESCRIPTION = re.compile(
    r"ParentBased\{root:(?P<root>\w+)(\{(?P<rate>[0-9.e-]+)\})?,remoteParentSampled:[^,]+,"
    r"remoteParentNotSampled:AlwaysOffSampler,localParentSampled:[^,]+,"
    r"localParentNotSampled:AlwaysOffSampler\}"
)
"""Description of a sampler that never samples a child of a span that is not sampled."""
RATIO = "TraceIdRatioBased"
SAMPLED: Final = trace.TraceFlags.SAMPLED
LOW_DIGITS = 16
"""Number of the last hexadecimal digits of a trace id, by which the ratio decides."""

prepared: ContextVar[int | None] = ContextVar("bus.prepared_trace_id", default=None)
"""Trace id for the next trace, for which the recorder has decided already."""


class PreparedIds:
    """Id generator that returns the prepared trace id."""

    def __init__(self, generator: Any) -> None:
        self._generator = generator

    def generate_span_id(self) -> int:
        """Return a new span id."""
        return int(self._generator.generate_span_id())

    def generate_trace_id(self) -> int:
        """Return the prepared trace id, or a new one."""
        trace_id = prepared.get()
        return int(self._generator.generate_trace_id()) if trace_id is None else trace_id

    def is_trace_id_random(self) -> bool:
        """Return True if the trace id is random, as the flag of level 2 states."""
        if prepared.get() is not None:
            return True
        return bool(getattr(self._generator, "is_trace_id_random", bool)())


class KnownSampler:
    """Facts about the sampler of a tracer."""

    def __init__(self, tracer: trace.Tracer) -> None:
        """Read the description of the sampler. The tracer belongs to the bus alone."""
        sdk: Any = tracer
        try:
            match = DESCRIPTION.fullmatch(sdk.sampler.get_description())
            generator = sdk.id_generator
        except Exception:  # noqa: BLE001 - another implementation, or a sampler of the application
            match, generator = None, None
        self.follows_parent = match is not None
        """True if a child of a span that is not sampled is never sampled."""
        self._bound: int | None = None
        if match is not None and match["root"] == RATIO and match["rate"]:
            self._bound = round(float(match["rate"]) * (1 << 64))
            if not isinstance(generator, PreparedIds):
                sdk.id_generator = PreparedIds(generator)

    def drops_child(self, parent: trace.SpanContext) -> bool:
        """Return True if a child of this span is certainly not sampled."""
        return self.follows_parent and parent.is_valid and not parent.trace_flags & SAMPLED

    def new_root(self) -> str | None:
        """Return the id of a new trace in hex, or None if only the tracer can decide about it."""
        return None if self._bound is None else new_trace_id()

    def samples(self, trace_id: str) -> bool:
        """Return True if the sampler samples a new trace with the id that `new_root` returned."""
        return self._bound is None or int(trace_id[LOW_DIGITS:], 16) < self._bound
