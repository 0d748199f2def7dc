"""The measurements of one endpoint, while another thread reads them."""

from dataclasses import dataclass

from bus.messaging.envelope import Envelope
from bus.messaging.instruments import HANDLED, HANDLER_SECONDS, SHED
from bus.runtime.endpoint_measures import EndpointMeasures
from bus.runtime.inbound_message import InboundMessage
from bus.runtime.router import Router
from bus.runtime.service_runtime import ServiceRuntime
from bus.settings import load_settings
from bus.storage.memory.meter import MemoryMeter
from tests.unit.fakes import NOW, FakeDelivery, FakeTransport, envelope
from tests.unit.ledger import Add, Total


@dataclass
class ReadMeanwhile:
    """A delivery at which a scrape reads the meter, as another thread can at any moment."""

    envelope: Envelope
    meter: MemoryMeter

    @property
    def redelivered(self) -> bool:
        self.meter.snapshot()
        return False


def measures_of(meter: MemoryMeter) -> EndpointMeasures:
    router = Router("ledger")

    @router.request(Add)
    async def add(_: Add) -> Total:
        return Total(total=1)

    (endpoint,) = router.endpoints.values()
    runtime = ServiceRuntime(
        service="ledger",
        instance="host-1",
        transport=FakeTransport(),
        settings=load_settings(),
        clock=lambda: NOW,
        meter=meter,
    )
    return EndpointMeasures(endpoint, runtime)


def test_no_attempt_is_lost_or_fails_while_another_thread_reads_the_meter() -> None:
    meter = MemoryMeter(clock=lambda: NOW)
    measures = measures_of(meter)
    message = InboundMessage(FakeDelivery(envelope("ledger.add.v1", role="request")))
    message.deliveries[:] = [ReadMeanwhile(message.envelope, meter)]  # type: ignore[list-item]  # only two attributes are read
    for _ in range(3):
        measures.succeeded(message, 0.001)
        measures.failed(message, ValueError("no account"), 0.002)
    series = meter.snapshot()
    outcomes = {each.labels["outcome"]: each.value for each in series if each.name == HANDLED.name}
    (durations,) = (each for each in series if each.name == HANDLER_SECONDS.name)
    assert outcomes == {"ok": 3, "internal": 3}
    assert durations.count == 6


def test_a_shed_request_is_counted_by_its_verified_caller_and_its_reason() -> None:
    meter = MemoryMeter(clock=lambda: NOW)
    measures = measures_of(meter)
    request = envelope("ledger.add.v1", role="request", source="office")
    measures.shed(request, "deadline")
    measures.shed(request, "rate", verified=False)
    found = [each.labels for each in meter.snapshot() if each.name == SHED.name]
    assert {(each["caller"], each["reason"]) for each in found} == {
        ("office", "deadline"),
        ("unverified", "rate"),
    }
