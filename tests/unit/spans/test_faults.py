"""Spans of failed sends, and telemetry that fails itself."""

import asyncio
import logging
import subprocess
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import pytest
from opentelemetry import propagate
from opentelemetry.context import Context
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.sampling import ALWAYS_ON, Sampler
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from pydantic import SecretStr
from typing_extensions import override

from bus import Cancelled, DeadlineExceeded, NotServed, Router
from bus.messaging.topology.addresses import address_of
from bus.middleware.spans import SpanSource
from bus.runtime.traces import span_source
from bus.testing import MemoryBuses
from bus.testing.explicit_settings import ExplicitSettings
from bus.transports.wire_format import AmqpMessage
from tests.polling import until
from tests.unit.ledger import Add, GetTotal, Total
from tests.unit.spans.recorded import Recorded, recording
from tests.unit.spans.services import ledger, serving


def error_type(span: ReadableSpan) -> object:
    return (span.attributes or {}).get("error.type")


async def test_a_request_that_was_sent_again_has_one_span_with_the_resend_as_an_event(
    buses: MemoryBuses, recorded: Recorded, skip_waits: None
) -> None:
    router, runs = Router("ledger"), []

    @router.request(GetTotal)
    async def get_total(request: GetTotal) -> Total:
        runs.append(1)
        if len(runs) == 1:
            buses.broker.drop_all()
        return Total(total=len(runs))

    await serving(buses, router)
    await (await buses.bus("office")).request(GetTotal(), timeout=60)
    caller = recorded.only("CLIENT")
    assert [(each.name, dict(each.attributes or {})) for each in caller.events] == [
        ("trunkline.resend", {"error.type": "unavailable"})
    ]
    assert error_type(caller) is None
    assert caller.status.status_code.name == "UNSET"
    assert caller.context is not None
    workers = [each.parent for each in recorded.spans if each.kind.name == "SERVER"]
    assert {each.span_id for each in workers if each} == {caller.context.span_id}


async def test_a_request_that_no_service_serves_has_the_span_of_the_caller_alone(
    buses: MemoryBuses, recorded: Recorded
) -> None:
    with pytest.raises(NotServed):
        await (await buses.bus("office")).request(GetTotal())
    assert recorded.tree() == "CLIENT ledger.total.v1 (unavailable)"


async def test_a_cancelled_call_and_a_handler_that_is_too_slow_have_their_codes(
    buses: MemoryBuses, recorded: Recorded, skip_waits: None
) -> None:
    router, started = Router("ledger"), asyncio.Event()

    @router.request(Add)
    async def add(request: Add) -> Total:
        started.set()
        await asyncio.Event().wait()
        return Total(total=1)

    await serving(buses, router)
    office = await buses.bus("office")
    call = asyncio.create_task(office.request(Add(), timeout=5))
    await started.wait()
    call.cancel()
    with suppress(asyncio.CancelledError):
        await call
    assert error_type(recorded.only("CLIENT")) == Cancelled.code
    with pytest.raises(DeadlineExceeded):
        await office.request(Add(), timeout=1)
    await buses.settled()
    assert [error_type(each) for each in recorded.spans if each.kind.name == "SERVER"] == [
        "deadline_exceeded"
    ] * 2


class Raising(Sampler):
    @override
    def should_sample(self, *args: object, **kwargs: object) -> None:  # type: ignore[override]
        raise RuntimeError("Eleonora Quist")

    @override
    def get_description(self) -> str:
        return "raising"


class RaisingAtTheEnd(SpanProcessor):
    @override
    def on_end(self, span: ReadableSpan) -> None:
        raise RuntimeError("Eleonora Quist")


class RaisingPropagator(TraceContextTextMapPropagator):
    fails_to_inject = False

    @override
    def extract(self, *args: object, **kwargs: object) -> Context:
        raise RuntimeError("Eleonora Quist")

    @override
    def inject(self, *args: Any, **kwargs: Any) -> None:
        if self.fails_to_inject:
            raise RuntimeError("Eleonora Quist")
        super().inject(*args, **kwargs)


@pytest.mark.parametrize("fails_to_inject", [False, True])
async def test_a_propagator_that_raises_is_replaced_and_fails_no_message(
    fails_to_inject: bool,
    buses: MemoryBuses,
    recorded: Recorded,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    propagator = RaisingPropagator()
    propagator.fails_to_inject = fails_to_inject
    monkeypatch.setattr(propagate, "_HTTP_TEXT_FORMAT", propagator)
    await serving(buses, ledger())
    office = await buses.bus("office")
    for _ in range(2):
        await office.request(Add())
    assert recorded.tree().count("\n  SERVER ledger.add.v1") == 2
    lines = [each.getMessage() for each in caplog.records if each.name == "bus.spans"]
    assert len(lines) == 1 + fails_to_inject  # one for the service's bus, and one for the caller's
    assert "Eleonora" not in str(lines)


async def test_a_sampler_or_span_processor_that_raises_fails_no_message(
    buses: MemoryBuses, caplog: pytest.LogCaptureFixture
) -> None:
    await serving(buses, ledger())
    office = await buses.bus("office")
    with recording(Raising()), caplog.at_level(logging.WARNING, "bus.spans"):
        for _ in range(3):
            await office.request(Add())
    lines = [each.getMessage() for each in caplog.records if each.name == "bus.spans"]
    assert len(lines) == 2  # one for the caller's bus and one for the service's
    assert "RuntimeError" in lines[0]
    assert "Quist" not in lines[0]


async def test_a_span_processor_that_raises_at_the_end_of_a_span_fails_no_message(
    buses: MemoryBuses,
) -> None:
    await serving(buses, ledger())
    office = await buses.bus("office")
    with recording(ALWAYS_ON, RaisingAtTheEnd()) as recorded:
        assert await office.request(Add()) == Total(total=1)
    assert len(recorded.spans) == 4


class Hanging(SpanExporter):
    def __init__(self) -> None:
        self.entered, self.released = threading.Event(), threading.Event()

    @override
    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        self.entered.set()
        self.released.wait(20)
        return SpanExportResult.FAILURE


async def test_a_collector_that_hangs_delays_no_message(buses: MemoryBuses) -> None:
    exporter = Hanging()
    batches = BatchSpanProcessor(
        exporter, max_queue_size=8, max_export_batch_size=4, schedule_delay_millis=1
    )
    await serving(buses, ledger())
    office = await buses.bus("office")
    with recording() as recorded:
        recorded.provider.add_span_processor(batches)
        try:
            await office.request(GetTotal())
            await until(exporter.entered.is_set, "the export")
            for _ in range(50):  # more spans than the queue holds
                assert await office.request(GetTotal(), timeout=5) == Total(total=1)
            assert not exporter.released.is_set()
        finally:
            exporter.released.set()
            batches.shutdown()  # type: ignore[no-untyped-call]  # the SDK has no type for it


def test_without_the_package_or_with_the_setting_off_the_bus_records_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    settings = ExplicitSettings(auth="off")
    assert isinstance(span_source(settings, "i-1"), SpanSource)
    assert span_source(ExplicitSettings(auth="off", traces="off"), "i-1") is None
    monkeypatch.delitem(sys.modules, "opentelemetry.trace")
    monkeypatch.setitem(sys.modules, "opentelemetry", None)
    assert span_source(settings, "i-1") is None


async def test_with_the_setting_off_a_service_has_no_span(
    buses: MemoryBuses, recorded: Recorded
) -> None:
    await buses.serve(await buses.bus("ledger", traces="off"), ledger())
    await (await buses.bus("office", traces="off")).request(Add())
    assert recorded.spans == []


async def test_a_message_of_an_unknown_sender_has_no_span(
    buses: MemoryBuses, recorded: Recorded
) -> None:
    secret = {"auth": "dev", "key": SecretStr("s" * 32)}
    await buses.serve(await buses.bus("ledger", **secret), ledger())
    await buses.bus("office", **secret)
    headers = {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}
    wire = AmqpMessage(
        body=b"{}", message_id="m-1", type="ledger.total.v1", app_id="office", headers=headers
    )
    buses.broker.publish(wire, address_of("request", "ledger.total.v1"))
    await buses.settled()
    assert recorded.spans == []
    await (await buses.bus("office", **secret)).request(GetTotal())
    assert len(recorded.spans) == 2


PROGRAM = """
import asyncio, sys
from bus.testing import MemoryBuses
from tests.unit.spans.services import ledger, serving
from tests.unit.ledger import Add

async def main():
    async with MemoryBuses() as buses:
        await serving(buses, ledger())
        await (await buses.bus("office")).request(Add())

asyncio.run(main())
assert not [name for name in sys.modules if name.startswith("opentelemetry.")]
"""


def test_a_service_that_does_not_use_opentelemetry_does_not_import_it() -> None:
    subprocess.run([sys.executable, "-c", PROGRAM], check=True)
