"""The names and attributes of spans, as the semantic conventions demand them."""

from contextlib import suppress

import pytest
from opentelemetry.sdk.trace import ReadableSpan

from bus import Router, correlated
from bus.messaging.topology.addresses import address_of
from bus.middleware.spans import Conventions
from bus.runtime.traces import span_source
from bus.testing import MemoryBuses
from bus.testing.explicit_settings import ExplicitSettings
from bus.transports.wire_format import AmqpMessage
from tests.unit.ledger import BooksClosed, GetTotal, Total
from tests.unit.spans.recorded import Recorded
from tests.unit.spans.services import ledger, serving


def attributes(span: ReadableSpan) -> dict[str, object]:
    assert span.attributes is not None
    return dict(span.attributes)


async def test_a_request_has_the_attributes_of_the_rpc_conventions(
    buses: MemoryBuses, recorded: Recorded
) -> None:
    await serving(buses, ledger())
    with correlated("c-7"):
        await (await buses.bus("office")).request(GetTotal())
    caller, worker = attributes(recorded.only("CLIENT")), attributes(recorded.only("SERVER"))
    message_id = caller.pop("messaging.message.id")
    assert message_id == worker.pop("messaging.message.id")
    assert caller == {
        "rpc.system.name": "trunkline",
        "rpc.method": "ledger.total.v1",
        "rpc.status_code": "ok",
        "server.address": "ledger",
        "messaging.message.conversation_id": "c-7",
    }
    assert worker == caller | {"trunkline.message.source": "office"}
    scope = recorded.only("SERVER").instrumentation_scope
    assert scope is not None
    assert scope.name == "trunkline"
    assert scope.schema_url == "https://opentelemetry.io/schemas/1.45.0"


async def test_an_event_has_the_attributes_of_the_conventions_for_rabbitmq(
    buses: MemoryBuses, recorded: Recorded
) -> None:
    router = Router("archive")

    @router.event(BooksClosed, subscription="old")
    async def keep(event: BooksClosed) -> None: ...

    archive, office = await serving(buses, router), await buses.bus("ledger")
    await office.publish(BooksClosed())
    await buses.settled()
    send, process = recorded.only("PRODUCER"), recorded.only("CONSUMER")
    assert send.name == "publish bus.events:ledger.closed.v1"
    assert process.name == "process archive.events.ledger.closed.v1.old"
    message = {"messaging.message.id", "messaging.message.conversation_id"}
    assert message < attributes(send).keys()
    assert {key: value for key, value in attributes(send).items() if key not in message} == {
        "messaging.system": "rabbitmq",
        "messaging.operation.name": "publish",
        "messaging.operation.type": "send",
        "messaging.destination.name": "bus.events:ledger.closed.v1",
        "messaging.rabbitmq.destination.routing_key": "ledger.closed.v1",
        "messaging.client.id": office.instance,
    }
    assert {key: value for key, value in attributes(process).items() if key not in message} == {
        "messaging.system": "rabbitmq",
        "messaging.operation.name": "process",
        "messaging.operation.type": "process",
        "messaging.destination.name": "archive.events.ledger.closed.v1.old",
        "messaging.destination.subscription.name": "old",
        "messaging.client.id": archive.instance,
        "trunkline.message.source": "ledger",
        "trunkline.message.attempt": 1,
    }


async def test_a_request_that_the_service_does_not_have_is_other_and_keeps_its_own_name(
    buses: MemoryBuses, recorded: Recorded
) -> None:
    await serving(buses, ledger())
    wire = AmqpMessage(
        body=b"{}", message_id="m-1", type="ledger." + "x" * 200, app_id="pika", headers={}
    )
    buses.broker.publish(wire, address_of("request", "ledger.total.v1"))
    await buses.settled()
    worker = recorded.only("SERVER")
    found = attributes(worker)
    assert (worker.name, found["rpc.method"]) == ("trunkline", "_OTHER")
    assert found["rpc.method_original"] == ("ledger." + "x" * 200)[:100]
    assert found["error.type"] == found["rpc.status_code"] == "unimplemented"


async def test_a_failure_of_the_service_itself_is_an_error_of_its_span_with_the_place(
    buses: MemoryBuses, recorded: Recorded
) -> None:
    router = Router("ledger")

    @router.request(GetTotal)
    async def get_total(request: GetTotal) -> Total:
        raise ValueError("Eleonora Quist")

    await serving(buses, router)
    with suppress(Exception):
        await (await buses.bus("office")).request(GetTotal())
    found = attributes(recorded.only("SERVER"))
    assert found["error.type"] == found["rpc.status_code"] == "internal"
    assert "test_attributes.py" in str(found["trunkline.error.where"])
    assert recorded.only("SERVER").status.status_code.name == "ERROR"
    assert not any("Quist" in each.to_json() for each in recorded.spans)


OLD_RPC = {"rpc.system": "trunkline", "rpc.service": "ledger"}
OLD_MESSAGING = {"messaging.operation": "publish", "messaging.client_id": "i-1"}


@pytest.mark.parametrize(
    ("opt_in", "rpc", "messaging"),
    [
        ("", {}, {}),
        ("rpc,messaging", {}, {}),
        ("http/dup", {}, {}),
        ("rpc/dup", OLD_RPC, {}),
        ("messaging/dup", {}, OLD_MESSAGING),
        ("http, messaging/dup ,rpc,rpc/dup", OLD_RPC, OLD_MESSAGING),
    ],
)
def test_the_opt_in_adds_the_older_names(
    opt_in: str,
    rpc: dict[str, str],
    messaging: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OTEL_SEMCONV_STABILITY_OPT_IN", opt_in)
    source = span_source(ExplicitSettings(auth="off"), "i-1")
    assert source is not None
    chosen = source.conventions
    plain = Conventions("i-1")
    for role, type_, more in (
        ("request", "ledger.total.v1", rpc),
        ("event", "ledger.closed.v1", messaging),
        ("job", "ledger.close.v1", messaging),
    ):
        found, before = chosen.sending(role, type_), plain.sending(role, type_)
        assert found.attributes == {**before.attributes, **more}
        assert (found.name, found.kind) == (before.name, before.kind)
