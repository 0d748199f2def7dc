"""How the registry of services limits the calls of each kind of sender."""

import asyncio
from typing import Any

import pytest

from bus import ServiceConfig, ServiceDefaults
from bus.contracts.contract import Event, Job, Message, Request, contract
from bus.errors import ConnectionLost, DeadlineExceeded
from bus.messaging.call_limits import CallLimits
from bus.messaging.context import Context
from bus.messaging.envelope import Envelope
from bus.messaging.handler import Handler
from bus.middleware.stacks import client_stack
from bus.runtime.client import Client
from bus.runtime.router import Router
from bus.runtime.sync_bus import SyncBus
from bus.settings import load_settings
from bus.testing import MemoryBuses, SyncMemoryBuses
from tests.unit.fakes import NOW, FakeTransport, runtime_of, virtual
from tests.unit.runtime.in_memory import in_memory

TIMEOUT = ServiceConfig("limited", timeout=3)


class Answer(Message):
    number: int = 0


@contract("limited.ask", version=1, idempotent=True)
class Ask(Request[Answer]): ...


@contract("limited.other", version=1)
class AskOther(Request[Answer]): ...


@contract("limited.work", version=1)
class Work(Job[Answer]): ...


@contract("limited.changed", version=1)
class Changed(Event): ...


@contract("relay.pass", version=1)
class Relay(Request[Answer]): ...


def silent() -> Router:
    """Return the service `limited`, with a handler that never ends."""
    router = Router("limited")

    @router.request(Ask)
    async def ask(request: Ask) -> Answer:
        await asyncio.Event().wait()
        return Answer()

    return router


async def time_out(call: Any) -> tuple[str, float]:
    """Return the text of the timeout of a call, and its seconds."""
    began = asyncio.get_running_loop().time()
    with pytest.raises(DeadlineExceeded) as caught:
        await call
    return str(caught.value), asyncio.get_running_loop().time() - began


@in_memory
async def test_a_request_without_a_timeout_has_that_of_its_service(buses: MemoryBuses) -> None:
    await buses.serve(await buses.bus("limited"), silent())
    bus = await buses.bus("caller", services=[TIMEOUT], request_timeout=60)
    text, seconds = await time_out(bus.request(Ask()))
    assert seconds == pytest.approx(3, abs=0.1)
    assert text == (
        "limited.ask.v1: no reply within 3 s. Check that the service runs and is not overloaded, "
        "or raise the timeout (ServiceConfig('limited').timeout)."
    )


@in_memory
async def test_the_timeout_of_a_caller_wins_over_that_of_the_service(buses: MemoryBuses) -> None:
    await buses.serve(await buses.bus("limited"), silent())
    bus = await buses.bus("caller", services=[TIMEOUT])
    text, seconds = await time_out(bus.request(Ask(), timeout=1))
    assert seconds == pytest.approx(1, abs=0.1)
    assert text.endswith("or raise the timeout.")


@in_memory
async def test_each_side_names_the_attempt_and_the_setting_of_its_timeout(
    buses: MemoryBuses,
) -> None:
    await buses.serve(await buses.bus("limited"), silent())
    config = ServiceConfig("limited", attempt_timeout=0.5, retries=0)
    defaults = ServiceDefaults(attempt_timeout=0.5, retries=0)
    for given, setting in (
        ({"services": [config]}, "ServiceConfig('limited').attempt_timeout"),
        ({"service_defaults": defaults}, "ServiceDefaults.attempt_timeout"),
    ):
        bus = await buses.bus("caller", **given)
        for timeout in (None, 3):
            text, _ = await time_out(bus.request(Ask(), timeout=timeout))
            assert " within 0.5 s in attempt 1. Check that the service " in text
            assert text.endswith(f"or raise the attempt_timeout ({setting}).")


@in_memory
async def test_a_service_without_a_timeout_has_the_common_one(buses: MemoryBuses) -> None:
    await buses.serve(await buses.bus("limited"), silent())
    for services in ([], [ServiceConfig("limited", retries=2)], [ServiceConfig("x", timeout=1)]):
        bus = await buses.bus("caller", services=services, request_timeout=2)
        text, seconds = await time_out(bus.request(Ask()))
        assert seconds == pytest.approx(2, abs=0.1)
        assert text.endswith("or raise the timeout (BUS_REQUEST_TIMEOUT).")


@in_memory
async def test_the_deadline_of_the_handled_message_wins_over_the_timeout_of_a_service(
    buses: MemoryBuses,
) -> None:
    relay = Router("relay")

    @relay.request(Relay)
    async def pass_on(request: Relay, context: Context) -> Answer:
        return await context.bus.request(Ask())

    await buses.serve(await buses.bus("limited"), silent())
    config = ServiceConfig("limited", timeout=30, retries=1)
    await buses.serve(await buses.bus("relay", services=[config]), relay)
    caller = await buses.bus("caller")
    _, seconds = await time_out(caller.request(Relay(), timeout=2))
    assert seconds == pytest.approx(2, abs=0.1)
    outer, inner = (buses.requested(each).one().envelope for each in (Relay, Ask))
    assert inner.deadline == pytest.approx(outer.deadline, abs=100)
    assert inner.limits == CallLimits(retries=1), "no setting can extend the deadline"


@in_memory
async def test_a_handler_calls_a_service_with_the_timeout_of_the_service(
    buses: MemoryBuses,
) -> None:
    relay = Router("relay")

    @relay.request(Relay)
    async def pass_on(request: Relay, context: Context) -> Answer:
        _, seconds = await time_out(context.bus.request(Ask()))
        return Answer(number=round(seconds))

    await buses.serve(await buses.bus("limited"), silent())
    await buses.serve(await buses.bus("relay", services=[TIMEOUT]), relay)
    assert await (await buses.bus("caller")).request(Relay()) == Answer(number=3)


def test_a_synchronous_bus_uses_the_timeout_of_a_service() -> None:
    with SyncMemoryBuses() as buses:
        buses.serve(silent())
        bus = SyncBus("caller")
        buses.connect(bus, services=[ServiceConfig("limited", timeout=0.1)], request_timeout=60)
        with pytest.raises(DeadlineExceeded, match=r"ServiceConfig\('limited'\)\.timeout"):
            bus.request(Ask())


def test_an_error_names_the_variable_or_the_file_that_has_set_the_timeout(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "services.toml"
    file.write_text("[services.limited]\ntimeout = 3\n")
    in_file = load_settings(services_file=file).registry.limits()["limited"]
    assert in_file.setting == f"services.limited.timeout in {file}"
    monkeypatch.setenv("BUS_SERVICES__LIMITED__TIMEOUT", "3")
    in_variable = load_settings(services_file=file).registry.limits()["limited"]
    assert in_variable.setting == "BUS_SERVICES__LIMITED__TIMEOUT"


# --- Retries ---


async def attempts_of(message: Any, *services: ServiceConfig) -> int:
    """Return how often a client sends a message if the connection is lost at each attempt."""
    attempts, loop = 0, asyncio.get_running_loop()

    def lose(_: Handler) -> Handler:
        async def call(envelope: Envelope) -> Envelope | None:
            nonlocal attempts
            attempts += 1
            raise ConnectionLost("lost")

        return call

    def clock() -> float:
        return NOW + loop.time()

    settings = load_settings(services=services, request_timeout=60, publish_timeout=60)
    runtime = runtime_of(FakeTransport(), service="caller", settings=settings, clock=clock)
    client = Client(runtime, [*client_stack(clock=clock), lose])
    await client.start()
    with pytest.raises(ConnectionLost):
        await (client.submit(message) if isinstance(message, Work) else client.request(message))
    return attempts


@pytest.mark.parametrize(("retries", "attempts"), [(0, 1), (1, 2), (4, 5)])
@pytest.mark.parametrize("message", [Ask(), AskOther(), Work()], ids=["idempotent", "other", "job"])
def test_a_message_is_sent_again_at_most_as_often_as_its_service_allows(
    message: Any, retries: int, attempts: int
) -> None:
    @virtual
    async def run() -> None:
        assert await attempts_of(message, ServiceConfig("limited", retries=retries)) == attempts

    run()


@virtual
async def test_the_retries_also_limit_a_call_with_a_timeout_of_its_own() -> None:
    config = ServiceConfig("limited", retries=2, timeout=30)
    assert await attempts_of(Ask(), config) == 3


@virtual
async def test_without_a_number_only_the_deadline_limits_the_retries() -> None:
    for services in ([], [TIMEOUT], [ServiceConfig("other", retries=0)]):
        assert await attempts_of(AskOther(), *services) > 5


@virtual
async def test_an_event_has_no_destination_so_no_service_limits_it() -> None:
    loop, transport = asyncio.get_running_loop(), FakeTransport()
    settings = load_settings(services=[ServiceConfig("limited", retries=0)])
    losses = [ConnectionLost("lost")] * 3

    def answer(_: Envelope) -> None:
        if losses:
            raise losses.pop()

    transport.answer = answer

    def clock() -> float:
        return NOW + loop.time()

    runtime = runtime_of(transport, service="limited", settings=settings, clock=clock)
    client = Client(runtime, client_stack(clock=clock))
    await client.start()
    await client.publish(Changed())
    assert len(transport.sent) == 4
