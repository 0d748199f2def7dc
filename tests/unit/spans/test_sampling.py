"""Decisions that the recorder takes instead of the tracer."""

from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.sampling import (
    ALWAYS_OFF,
    ALWAYS_ON,
    DEFAULT_ON,
    Decision,
    ParentBased,
    Sampler,
    TraceIdRatioBased,
)

from bus import Router
from bus.messaging.trace_context import parse_traceparent, unsampled_traceparent
from bus.middleware.spans.known_sampler import KnownSampler
from bus.testing import MemoryBuses
from tests.unit.ledger import Add, BooksClosed
from tests.unit.spans.recorded import recording
from tests.unit.spans.services import ledger, serving

HALF = ParentBased(TraceIdRatioBased(0.5))


def known(sampler: Sampler) -> KnownSampler:
    return KnownSampler(TracerProvider(sampler=sampler, shutdown_on_exit=False).get_tracer("a"))


def test_the_decision_about_a_new_trace_is_that_of_the_sampler() -> None:
    for rate in (0.0, 0.01, 0.3, 1.0):
        sampler, ours = TraceIdRatioBased(rate), known(ParentBased(TraceIdRatioBased(rate)))
        for _ in range(500):
            root = ours.new_root()
            assert root is not None
            theirs = sampler.should_sample(None, int(root, 16), "name").decision
            assert ours.samples(root) == (theirs is Decision.RECORD_AND_SAMPLE)
            parsed = parse_traceparent(unsampled_traceparent(root))
            assert parsed is not None
            assert (parsed.trace_id, parsed.flags) == (root, 2)


def test_the_recorder_decides_only_for_a_sampler_that_it_knows() -> None:
    unsampled = trace.SpanContext(1, 1, is_remote=True, trace_flags=trace.TraceFlags(2))
    sampled = trace.SpanContext(1, 1, is_remote=True, trace_flags=trace.TraceFlags(3))
    others: list[Sampler] = [ALWAYS_ON, ALWAYS_OFF, TraceIdRatioBased(0.5)]
    for other in others:
        assert not known(other).drops_child(unsampled)
        assert known(other).new_root() is None
    different = ParentBased(TraceIdRatioBased(0.5), remote_parent_not_sampled=ALWAYS_ON)
    assert not known(different).drops_child(unsampled)
    assert known(different).new_root() is None
    assert KnownSampler(trace.NoOpTracer()).new_root() is None
    assert known(DEFAULT_ON).new_root() is None
    for sampler in (DEFAULT_ON, HALF):
        assert known(sampler).drops_child(unsampled)
        assert not known(sampler).drops_child(sampled)
        assert not known(sampler).drops_child(trace.INVALID_SPAN_CONTEXT)


async def test_a_trace_is_recorded_as_a_whole_or_not_at_all(buses: MemoryBuses) -> None:
    with recording(HALF) as recorded:
        await serving(buses, ledger())
        office = await buses.bus("office")
        for _ in range(40):
            await office.request(Add())
    sizes = dict[int, int]()
    for span in recorded.spans:
        assert span.context is not None
        sizes[span.context.trace_id] = sizes.get(span.context.trace_id, 0) + 1
        assert span.context.trace_flags == 3
    assert set(sizes.values()) == {4}
    assert 5 < len(sizes) < 35
    assert all(trace_id & (2**64 - 1) < 2**63 for trace_id in sizes)
    roots = [each for each in recorded.spans if each.parent is None]
    assert {each.kind.name for each in roots} == {"CLIENT"}
    assert len(roots) == len(sizes)


async def test_spans_of_an_application_in_an_unsampled_handler_are_not_recorded(
    buses: MemoryBuses,
) -> None:
    archive, flags = Router("archive"), list[int]()

    @archive.event(BooksClosed)
    async def keep(event: BooksClosed) -> None:
        with trace.get_tracer("app").start_as_current_span("query") as span:
            flags.append(span.get_span_context().trace_flags)

    with recording(ParentBased(TraceIdRatioBased(0.0))) as recorded:
        ledger_bus = await serving(buses, ledger())
        await serving(buses, archive)
        await ledger_bus.publish(BooksClosed())
        await buses.settled()
    assert flags == [2]
    assert recorded.spans == []


async def test_a_call_inside_an_unsampled_span_of_the_application_is_not_recorded(
    buses: MemoryBuses,
) -> None:
    with recording(ParentBased(TraceIdRatioBased(0.0))) as recorded:
        await serving(buses, ledger())
        office = await buses.bus("office")
        with trace.get_tracer("app").start_as_current_span("view") as view:
            await office.request(Add())
            assert not view.is_recording()
    assert recorded.spans == []
