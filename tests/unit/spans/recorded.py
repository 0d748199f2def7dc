"""A tracer provider that keeps its spans, and a text that shows them as trees."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_ON, Sampler

__all__ = ["Recorded", "provided", "recording"]


@dataclass
class Recorded:
    """The spans that have ended."""

    provider: TracerProvider
    exporter: InMemorySpanExporter = field(default_factory=InMemorySpanExporter)

    @property
    def spans(self) -> Sequence[ReadableSpan]:
        return sorted(self.exporter.get_finished_spans(), key=lambda each: each.start_time or 0)

    def only(self, kind: str, name: str = "") -> ReadableSpan:
        """Return the only span of a kind whose name contains `name`."""
        found = [each for each in self.spans if each.kind.name == kind and name in each.name]
        assert len(found) == 1, [each.name for each in self.spans]
        return found[0]

    def tree(self) -> str:
        """Return the spans as an indented text: kind, name, error, and the names of links."""
        ids = {_id(each.context): each for each in self.spans}
        lines: list[str] = []

        def add(span: ReadableSpan, depth: int) -> None:
            links = "".join(
                f" <- {(link.attributes or {})['trunkline.link']!s} "
                f"{ids[_id(link.context)].kind.name if _id(link.context) in ids else 'elsewhere'}"
                for link in span.links
            )
            error = (span.attributes or {}).get("error.type")
            lines.append(
                f"{'  ' * depth}{span.kind.name} {span.name}{f' ({error})' if error else ''}{links}"
            )
            for child in self.spans:
                if child.parent is not None and _id(child.parent) == _id(span.context):
                    add(child, depth + 1)

        for span in self.spans:
            if span.parent is None or _id(span.parent) not in ids:
                add(span, 0)
        return "\n".join(lines)


def _id(context: trace.SpanContext | None) -> tuple[int, int]:
    assert context is not None
    return context.trace_id, context.span_id


@contextmanager
def provided(provider: trace.TracerProvider) -> Iterator[None]:
    """Set the global tracer provider inside the block. OpenTelemetry has no function for that."""
    before = trace._TRACER_PROVIDER
    trace._TRACER_PROVIDER = provider
    try:
        yield
    finally:
        trace._TRACER_PROVIDER = before


@contextmanager
def recording(sampler: Sampler = ALWAYS_ON, *more: SpanProcessor) -> Iterator[Recorded]:
    """Record all spans inside the block."""
    recorded = Recorded(TracerProvider(sampler=sampler, shutdown_on_exit=False))
    recorded.provider.add_span_processor(SimpleSpanProcessor(recorded.exporter))
    for processor in more:
        recorded.provider.add_span_processor(processor)
    with provided(recorded.provider):
        yield recorded
