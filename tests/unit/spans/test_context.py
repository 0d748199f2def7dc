"""The active span in callers and handlers, and the context that a message carries."""

import asyncio
import logging
from collections.abc import Awaitable
from typing import Any

import pytest
from opentelemetry import baggage, context, propagate, trace
from opentelemetry.propagators.composite import CompositePropagator
from opentelemetry.sdk.trace.sampling import (
    ALWAYS_OFF,
    Decision,
    ParentBased,
    Sampler,
    SamplingResult,
)
from opentelemetry.trace import TraceState
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from typing_extensions import override

from bus import Context, Envelope, Router, SyncBus
from bus.messaging.handler import Handler
from bus.messaging.trace_context import recorded_trace
from bus.middleware.tracing import tracing
from bus.operations.logging import MessageContextFilter
from bus.runtime.bus import Bus
from bus.testing import MemoryBuses, SyncMemoryBuses
from bus.testing.explicit_settings import ExplicitSettings
from bus.transports.memory import MemoryTransport
from tests.unit.ledger import BooksClosed, GetTotal, Total
from tests.unit.spans.recorded import Recorded, provided, recording
from tests.unit.spans.services import ledger, serving


def spying(seen: list[Envelope | str | None]) -> Router:
    router = Router("ledger")

    @router.request(GetTotal)
    async def get_total(request: GetTotal, context: Context) -> Total:
        active = trace.get_current_span().get_span_context()
        seen.extend([context.envelope, f"{active.span_id:016x}", recorded_trace.get()])
        return Total(total=1)

    return router


async def test_the_span_of_a_message_is_active_in_its_handler_and_no_longer_in_the_caller(
    buses: MemoryBuses, recorded: Recorded
) -> None:
    seen: list[Envelope | str | None] = []
    await serving(buses, spying(seen))
    office = await buses.bus("office")
    await office.request(GetTotal())
    worker = recorded.only("SERVER")
    assert worker.context is not None
    assert seen[1:] == [f"{worker.context.span_id:016x}", f"{worker.context.trace_id:032x}"]
    assert not trace.get_current_span().get_span_context().is_valid
    assert recorded_trace.get() is None


async def test_a_span_that_was_active_at_the_start_of_the_service_is_no_parent_of_its_messages(
    buses: MemoryBuses, recorded: Recorded
) -> None:
    with trace.get_tracer("app").start_as_current_span("start"):
        router = Router("archive")
        active: list[trace.Span] = []

        @router.event(BooksClosed)
        async def keep(event: BooksClosed) -> None:
            active.append(trace.get_current_span())

        await serving(buses, router)
    await (await buses.bus("ledger")).publish(BooksClosed())
    await buses.settled()
    consumer = recorded.only("CONSUMER")
    assert consumer.parent is None
    assert active[0].get_span_context() == consumer.context


async def test_log_records_of_a_handler_have_the_ids_of_its_span(
    buses: MemoryBuses, recorded: Recorded
) -> None:
    router, records = Router("ledger"), list[logging.LogRecord]()

    @router.request(GetTotal)
    async def get_total(request: GetTotal) -> Total:
        record = logging.makeLogRecord({"name": "mine", "msg": "text"})
        MessageContextFilter().filter(record)
        records.append(record)
        return Total(total=1)

    await serving(buses, router)
    await (await buses.bus("office")).request(GetTotal())
    worker = recorded.only("SERVER").context
    assert worker is not None
    fields = vars(records[0])
    assert (fields["trace_id"], fields["span_id"]) == (
        f"{worker.trace_id:032x}",
        f"{worker.span_id:016x}",
    )
    with trace.get_tracer("app").start_as_current_span("view") as view:
        record = logging.makeLogRecord({"name": "mine", "msg": "text"})
        MessageContextFilter().filter(record)
        assert vars(record)["span_id"] == f"{view.get_span_context().span_id:016x}"


async def test_without_a_span_log_records_of_a_handler_have_the_trace_of_the_message(
    buses: MemoryBuses,
) -> None:
    router, fields = Router("ledger"), dict[str, object]()

    @router.request(GetTotal)
    async def get_total(request: GetTotal, context: Context) -> Total:
        record = logging.makeLogRecord({"name": "mine", "msg": "text"})
        MessageContextFilter().filter(record)
        fields.update(vars(record), sent=(context.envelope.traceparent or "").split("-")[1])
        return Total(total=1)

    await serving(buses, router)
    await (await buses.bus("office")).request(GetTotal())
    assert (fields["trace_id"], fields["span_id"]) == (fields["sent"], "")
    record = logging.makeLogRecord({"name": "mine", "msg": "text"})
    MessageContextFilter().filter(record)
    assert (vars(record)["trace_id"], vars(record)["span_id"]) == ("", "")


async def test_a_trace_that_is_not_sampled_is_passed_on_as_such_and_leaves_no_span(
    buses: MemoryBuses,
) -> None:
    seen: list[Envelope | str | None] = []
    with recording(ParentBased(ALWAYS_OFF)) as recorded:
        await serving(buses, spying(seen))
        await (await buses.bus("office")).request(GetTotal())
    envelope = seen[0]
    assert isinstance(envelope, Envelope)
    assert (envelope.traceparent or "")[-3:] == "-02"  # random, not sampled
    assert seen[2] is None
    assert recorded.spans == []


async def test_baggage_of_the_caller_never_leaves_the_process(
    buses: MemoryBuses, recorded: Recorded
) -> None:
    seen: list[Envelope | str | None] = []
    await serving(buses, spying(seen))
    office = await buses.bus("office")
    token = context.attach(baggage.set_baggage("name", "Eleonora Quist"))
    try:
        await office.request(GetTotal())
    finally:
        context.detach(token)
    assert isinstance(seen[0], Envelope)
    assert "Quist" not in repr(seen[0])
    assert dict(seen[0].headers) == {}


class Marking(Sampler):
    """A sampler whose tracestate is longer than the bus sends."""

    @override
    def should_sample(self, *args: object, **kwargs: object) -> SamplingResult:
        state = TraceState([(f"k{number:02}", "v" * 20) for number in range(32)])
        return SamplingResult(Decision.RECORD_AND_SAMPLE, {}, state)

    @override
    def get_description(self) -> str:
        return "marking"


async def test_a_long_tracestate_is_shortened_so_that_older_services_accept_the_message(
    buses: MemoryBuses,
) -> None:
    seen: list[Envelope | str | None] = []
    with recording(Marking()):
        await serving(buses, spying(seen))
        await (await buses.bus("office")).request(GetTotal())
    assert isinstance(seen[0], Envelope)
    state = seen[0].tracestate or ""
    assert 460 < len(state) <= 512
    assert state.startswith("k00=")


async def test_another_propagator_does_not_change_the_headers_of_the_bus(
    buses: MemoryBuses, recorded: Recorded, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = CompositePropagator([])
    monkeypatch.setattr(propagate, "_HTTP_TEXT_FORMAT", other)
    await serving(buses, ledger())
    await (await buses.bus("office")).request(GetTotal())
    assert recorded.tree() == "CLIENT ledger.total.v1\n  SERVER ledger.total.v1"


async def test_the_propagator_of_the_application_writes_and_reads_the_headers(
    buses: MemoryBuses, recorded: Recorded, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Own(TraceContextTextMapPropagator):
        calls = 0

        @override
        def inject(self, carrier: Any, *args: Any, **kwargs: Any) -> None:
            Own.calls += 1
            super().inject(carrier, *args, **kwargs)

    monkeypatch.setattr(propagate, "_HTTP_TEXT_FORMAT", Own())
    await serving(buses, ledger())
    await (await buses.bus("office")).request(GetTotal())
    assert Own.calls == 2  # the message, and the span of the attempt
    assert recorded.tree() == "CLIENT ledger.total.v1\n  SERVER ledger.total.v1"


async def test_a_thread_of_a_handler_has_the_span_of_the_handler(
    buses: MemoryBuses, recorded: Recorded
) -> None:
    router, seen = Router("ledger"), list[trace.SpanContext]()

    @router.request(GetTotal)
    async def get_total(request: GetTotal) -> Total:
        active = await asyncio.to_thread(trace.get_current_span)
        seen.append(active.get_span_context())
        return Total(total=1)

    await serving(buses, router)
    await (await buses.bus("office")).request(GetTotal())
    assert seen == [recorded.only("SERVER").context]


def test_the_span_of_a_thread_is_the_parent_of_its_synchronous_call(recorded: Recorded) -> None:
    office = SyncBus("office")
    with SyncMemoryBuses() as sync_buses:
        sync_buses.serve(ledger())
        sync_buses.connect(office)
        with trace.get_tracer("app").start_as_current_span("view"):
            assert office.request(GetTotal()) == Total(total=1)
    assert recorded.tree() == (
        "INTERNAL view\n  CLIENT ledger.total.v1\n    SERVER ledger.total.v1"
    )


async def test_a_provider_that_is_set_after_the_start_is_used(buses: MemoryBuses) -> None:
    await serving(buses, ledger())
    office = await buses.bus("office")
    await office.request(GetTotal())
    with recording() as recorded:
        await office.request(GetTotal())
    assert recorded.tree() == "CLIENT ledger.total.v1\n  SERVER ledger.total.v1"


async def test_a_custom_stack_has_spans_and_keeps_their_context(
    buses: MemoryBuses, recorded: Recorded
) -> None:
    sent: list[Envelope] = []

    def noting(inner: Handler) -> Handler:
        def call(envelope: Envelope) -> Awaitable[Envelope | None]:
            sent.append(envelope)
            return inner(envelope)

        return call

    await serving(buses, ledger())
    transport = MemoryTransport(buses.broker)
    settings = ExplicitSettings(auth="off")
    async with Bus("office", settings=settings, transport=transport, client=[noting]) as bare:
        await bare.request(GetTotal())
    transport = MemoryTransport(buses.broker)
    stack = [tracing(), noting]
    async with Bus("office", settings=settings, transport=transport, client=stack) as traced:
        await traced.request(GetTotal())
    clients = [each.context for each in recorded.spans if each.kind.name == "CLIENT"]
    assert [(each.traceparent or "")[36:52] for each in sent] == [
        f"{each.span_id:016x}" for each in clients if each
    ]


async def test_a_provider_that_is_switched_off_leaves_the_trace_to_the_bus(
    buses: MemoryBuses,
) -> None:
    seen: list[Envelope | str | None] = []
    with provided(trace.NoOpTracerProvider()):
        await serving(buses, spying(seen))
        await (await buses.bus("office")).request(GetTotal())
    assert isinstance(seen[0], Envelope)
    assert (seen[0].traceparent or "").endswith("-03")


async def test_the_trace_of_a_sampled_message_is_the_exemplar_of_its_duration(
    buses: MemoryBuses,
) -> None:
    service = await serving(buses, ledger())
    office = await buses.bus("office")
    await office.request(GetTotal())
    assert exemplars(service) == set()
    with recording() as recorded:
        await office.request(GetTotal())
    worker = recorded.only("SERVER").context
    assert worker is not None
    assert exemplars(service) == {f"{worker.trace_id:032x}"}


def exemplars(bus: Bus) -> set[str]:
    """Return the trace ids of all histograms of a bus."""
    series = bus._report.stats().series
    return {trace_id for each in series for trace_id, _, _ in each.exemplars.values()}
