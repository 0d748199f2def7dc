"""Requests that wait until a service serves them (`wait_for_service=True`)."""

import asyncio
import gc
import weakref
from collections.abc import Awaitable
from typing import Any

import pytest

from bus import ServiceConfig
from bus.contracts.contract import Job, Message, Request, contract
from bus.errors import (
    BusError,
    ConfigurationError,
    DeadlineExceeded,
    NotFound,
    NotServed,
    PermissionDenied,
    Unavailable,
)
from bus.messaging.context import Context
from bus.messaging.control import Announcement
from bus.messaging.envelope import Envelope
from bus.messaging.ports.transport import Returned
from bus.middleware.stacks import client_stack
from bus.runtime import service_waits
from bus.runtime.bus import Bus
from bus.runtime.client import Client
from bus.runtime.router import Router
from bus.runtime.sync_bus import SyncBus
from bus.settings import load_settings
from bus.testing import MemoryBuses, SyncMemoryBuses
from tests.unit.fakes import NOW, FakeTransport, runtime_of, settle_down, virtual
from tests.unit.runtime.in_memory import in_memory


class Answer(Message):
    number: int = 7


@contract("late.ask", version=1)
class Ask(Request[Answer]):
    number: int = 7


@contract("late.other", version=1)
class AskOther(Request[Answer]): ...


@contract("late.work", version=1)
class Work(Job[None]): ...


@contract("relay.pass-late", version=1)
class Relay(Request[Answer]): ...


def late(error: BusError | None = None) -> Router:
    router = Router("late")

    @router.request(Ask)
    async def ask(request: Ask) -> Answer:
        if error is not None:
            raise error
        return Answer(number=request.number)

    return router


async def serve_after(seconds: float, buses: MemoryBuses, router: Router) -> None:
    await asyncio.sleep(seconds)
    await buses.serve(await buses.bus(router.name), router)


async def fail(call: Awaitable[Any], error: type[BusError]) -> tuple[str, float]:
    """Return the text of the error of a call, and the seconds until the error."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    with pytest.raises(error) as caught:
        await call
    assert not caught.value.maybe_executed
    return str(caught.value), loop.time() - began


@in_memory
async def test_a_request_that_waited_is_retried_if_its_service_refuses_it_at_first(
    buses: MemoryBuses,
) -> None:
    """Let the service start after the time of three attempts, because the wait is no attempt."""
    bus = await buses.bus("caller", services=[ServiceConfig("late", attempt_timeout=1)])
    router, seen = Router("late"), list[int]()

    @router.request(Ask)
    async def ask(request: Ask) -> Answer:
        seen.append(request.number)
        if len(seen) == 1:
            raise Unavailable("warming up", executed="no")
        return Answer()

    serving = asyncio.create_task(serve_after(3.5, buses, router))
    assert await bus.request(Ask(), timeout=30, wait_for_service=True) == Answer()
    assert seen == [7, 7]
    await serving


@in_memory
async def test_a_request_waits_until_its_service_has_started(buses: MemoryBuses) -> None:
    bus, loop = await buses.bus("caller"), asyncio.get_running_loop()
    began = loop.time()
    starting = asyncio.create_task(serve_after(5, buses, late()))
    assert await bus.request(Ask(), timeout=30, wait_for_service=True) == Answer()
    assert 5 <= loop.time() - began <= 6.1, "the service is found within about a second"
    await starting
    assert len(buses.requested(Ask)) == 1, "one message, published again and again"


@in_memory
async def test_a_request_of_a_served_type_does_not_wait(buses: MemoryBuses) -> None:
    await buses.serve(await buses.bus("late"), late())
    bus, loop = await buses.bus("caller"), asyncio.get_running_loop()
    began = loop.time()
    assert await bus.request(Ask(), wait_for_service=True) == Answer()
    assert loop.time() - began < 0.1


@in_memory
async def test_a_request_that_must_not_wait_fails_at_once(buses: MemoryBuses) -> None:
    bus = await buses.bus("caller")
    for options in ({}, {"wait_for_service": False}):
        _, seconds = await fail(bus.request(Ask(), timeout=30, **options), NotServed)
        assert seconds < 0.1


@in_memory
async def test_after_the_timeout_the_error_says_that_the_service_did_not_start(
    buses: MemoryBuses,
) -> None:
    bus = await buses.bus("caller")
    text, seconds = await fail(bus.request(Ask(), timeout=4, wait_for_service=True), NotServed)
    assert seconds == pytest.approx(4, abs=0.1)
    assert text == (
        "late.ask.v1: the service late did not start to serve it within 4 s. Start the service in "
        "a version that has a handler for it, or raise the timeout."
    )


@in_memory
async def test_a_request_without_a_timeout_waits_for_the_timeout_of_its_service(
    buses: MemoryBuses,
) -> None:
    bus = await buses.bus("caller", services=[ServiceConfig("late", timeout=3)])
    text, seconds = await fail(bus.request(Ask(), wait_for_service=True), NotServed)
    assert seconds == pytest.approx(3, abs=0.1)
    assert text.endswith("or raise the timeout (ServiceConfig('late').timeout).")


@in_memory
async def test_a_handler_waits_for_a_service_within_the_deadline_of_its_message(
    buses: MemoryBuses,
) -> None:
    relay = Router("relay")

    @relay.request(Relay)
    async def pass_on(request: Relay, context: Context) -> Answer:
        return await context.bus.request(Ask(), timeout=60, wait_for_service=True)

    await buses.serve(await buses.bus("relay"), relay)
    caller, loop = await buses.bus("caller"), asyncio.get_running_loop()
    began = loop.time()
    with pytest.raises((DeadlineExceeded, Unavailable)):
        await caller.request(Relay(), timeout=2)
    assert loop.time() - began == pytest.approx(2, abs=0.1)
    starting = asyncio.create_task(serve_after(3, buses, late()))
    assert await caller.request(Relay(), timeout=20) == Answer()
    await starting


@in_memory
async def test_an_error_of_the_service_ends_the_wait(buses: MemoryBuses) -> None:
    bus = await buses.bus("caller")
    starting = asyncio.create_task(serve_after(2, buses, late(NotFound("no such number"))))
    await fail(bus.request(Ask(), timeout=30, wait_for_service=True), NotFound)
    await starting


@in_memory
async def test_a_handler_that_raises_not_served_ends_the_wait(buses: MemoryBuses) -> None:
    await buses.serve(await buses.bus("late"), late(NotServed("no clerk")))
    bus = await buses.bus("caller")
    _, seconds = await fail(bus.request(Ask(), timeout=30, wait_for_service=True), Unavailable)
    assert seconds < 0.1


@in_memory
async def test_a_bus_that_is_closed_ends_the_waits(buses: MemoryBuses) -> None:
    bus = await buses.bus("caller")
    waiting = asyncio.create_task(bus.request(Ask(), timeout=30, wait_for_service=True))
    await asyncio.sleep(2)
    await bus.__aexit__(None, None, None)
    with pytest.raises(Unavailable, match="the bus was closed before a service served the request"):
        await waiting


@pytest.mark.parametrize("value", [1, 5.0, 0, None, "yes"])
def test_a_value_that_is_not_a_boolean_is_refused(value: Any) -> None:
    @in_memory
    async def run(buses: MemoryBuses) -> None:
        text, _ = await fail(
            (await buses.bus("caller")).request(Ask(), wait_for_service=value), ConfigurationError
        )
        assert text.startswith("late.ask.v1: wait_for_service must be True or False, not ")
        assert text.endswith("Write wait_for_service=True, and the seconds as timeout=.")

    run()


def test_a_synchronous_bus_waits_for_a_service() -> None:
    with SyncMemoryBuses() as buses:
        bus = SyncBus("caller")
        buses.connect(bus)
        with pytest.raises(NotServed, match=r"did not start to serve it within 0\.2 s"):
            bus.request(Ask(), timeout=0.2, wait_for_service=True)
        buses.serve(late())
        assert bus.request(Ask(), timeout=5, wait_for_service=True) == Answer()


# --- The circuit breaker and the bulkhead ---


class Flaky:
    """A service that fails while `error` is set."""

    def __init__(self) -> None:
        self.error: BusError | None = Unavailable("the archive is closed")
        self.handled = 0
        self.router = Router("late")

        @self.router.request(Ask)
        async def ask(request: Ask) -> Answer:
            self.handled += 1
            if self.error is not None:
                raise self.error
            return Answer()

    async def open_breaker(self, bus: Bus) -> None:
        """Call the service until the breaker of the caller is open."""
        for _ in range(5):
            with pytest.raises(Unavailable, match="the archive is closed"):
                await bus.request(Ask())
        with pytest.raises(Unavailable, match="the circuit breaker is open"):
            await bus.request(Ask())


@in_memory
async def test_requests_wait_until_the_circuit_breaker_of_their_operation_closes(
    buses: MemoryBuses,
) -> None:
    flaky = Flaky()
    await buses.serve(await buses.bus("late"), flaky.router)
    bus = await buses.bus("caller", services=[ServiceConfig("late", retries=0)])
    await flaky.open_breaker(bus)
    calls = [
        asyncio.create_task(bus.request(Ask(), timeout=60, wait_for_service=True))
        for _ in range(50)
    ]
    await asyncio.sleep(20)
    assert flaky.handled == 5, "no request passes the open breaker"
    flaky.error = None
    assert await asyncio.gather(*calls) == [Answer()] * 50
    assert flaky.handled == 55


@in_memory
async def test_a_request_that_waits_for_a_circuit_breaker_fails_at_its_deadline(
    buses: MemoryBuses,
) -> None:
    flaky = Flaky()
    await buses.serve(await buses.bus("late"), flaky.router)
    bus = await buses.bus("caller", services=[ServiceConfig("late", retries=0)])
    await flaky.open_breaker(bus)
    text, seconds = await fail(bus.request(Ask(), timeout=4, wait_for_service=True), Unavailable)
    assert seconds == pytest.approx(4, abs=0.1)
    assert "the request was not sent, because the circuit breaker is open" in text


@in_memory
async def test_a_request_that_waits_for_its_service_is_no_probe_of_the_circuit_breaker(
    buses: MemoryBuses,
) -> None:
    flaky = Flaky()
    server = await buses.bus("late")
    await buses.serve(server, flaky.router)
    bus = await buses.bus("caller", services=[ServiceConfig("late", retries=0)])
    await flaky.open_breaker(bus)
    await server.__aexit__(None, None, None)
    await asyncio.sleep(120)  # the queue has expired, and the next request is a probe
    waiting = asyncio.create_task(bus.request(Ask(), timeout=60, wait_for_service=True))
    await asyncio.sleep(5)
    await fail(bus.request(Ask()), NotServed)  # the breaker would reject it during a probe
    await cancel(waiting)


@in_memory
async def test_requests_that_wait_for_their_service_hold_no_permit_of_it(
    buses: MemoryBuses,
) -> None:
    """Let the service have a handler for one contract, and none for the other."""
    await buses.serve(await buses.bus("late"), late())
    bus = await buses.bus("caller", services=[ServiceConfig("late", max_in_flight=1)])
    waiting = [
        asyncio.create_task(bus.request(AskOther(), timeout=60, wait_for_service=True))
        for _ in range(20)
    ]
    await asyncio.sleep(5)
    assert await bus.request(Ask(), timeout=1) == Answer()
    await cancel(*waiting)


# --- Announcements ---


@pytest.fixture
def _no_publishes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let waiting requests be published again only after an announcement."""
    monkeypatch.setattr(service_waits, "FIRST_SECONDS", 1000)
    monkeypatch.setattr(service_waits, "MAX_SECONDS", 1000)


@pytest.mark.usefixtures("_no_publishes")
def test_a_started_service_is_called_at_once() -> None:
    @in_memory
    async def run(buses: MemoryBuses) -> None:
        bus, loop = await buses.bus("caller"), asyncio.get_running_loop()
        began = loop.time()
        starting = asyncio.create_task(serve_after(20, buses, late()))
        assert await bus.request(Ask(), timeout=60, wait_for_service=True) == Answer()
        assert 20 <= loop.time() - began < 20.4
        await starting

    run()


@pytest.mark.usefixtures("_no_publishes")
def test_without_discovery_no_announcement_is_heard() -> None:
    @in_memory
    async def run(buses: MemoryBuses) -> None:
        bus = await buses.bus("caller", discovery="off")
        starting = asyncio.create_task(serve_after(20, buses, late()))
        await fail(bus.request(Ask(), timeout=60, wait_for_service=True), NotServed)
        await starting

    run()


@in_memory
async def test_without_discovery_a_request_waits_for_its_service_as_well(
    buses: MemoryBuses,
) -> None:
    bus = await buses.bus("caller", discovery="off")
    starting = asyncio.create_task(serve_after(5, buses, late()))
    assert await bus.request(Ask(), timeout=30, wait_for_service=True) == Answer()
    await starting


class Denied:
    """The announcements for a caller without the right to read."""

    def __init__(self) -> None:
        self.streams = 0

    def __call__(self) -> "Denied":
        self.streams += 1
        return self

    def __aiter__(self) -> "Denied":
        return self

    async def __anext__(self) -> Announcement:
        raise PermissionDenied("caller may not read")

    async def aclose(self) -> None: ...


@virtual
async def test_a_caller_that_must_not_listen_tries_it_every_ten_minutes_and_waits_as_well() -> None:
    gate, denied = Gate(), Denied()
    client = await gate.client()
    client.waits.listener.announcements = denied
    for _ in range(3):
        tasks = wait(client, 2)
        await asyncio.sleep(10)
        await cancel(*tasks)
    assert denied.streams == 1
    assert len(gate.times) > 30
    await asyncio.sleep(600)
    tasks = wait(client, 2)
    await asyncio.sleep(10)
    await cancel(*tasks)
    assert denied.streams == 2


@virtual
async def test_a_short_wait_does_not_listen() -> None:
    gate, denied = Gate(), Denied()
    client = await gate.client()
    client.waits.listener.announcements = denied
    for _ in range(10):
        tasks = wait(client, 2)
        await asyncio.sleep(0.9)
        await cancel(*tasks)
    assert denied.streams == 0


# --- The number of publishes ---


class Gate:
    """A transport that returns each request, until the service has started."""

    def __init__(self) -> None:
        self.transport = FakeTransport(answer=self._answer)
        self.is_open = False
        self.times: list[float] = []

    def _answer(self, sent: Envelope) -> Returned | None:
        self.times.append(asyncio.get_running_loop().time())
        return None if self.is_open else Returned(reason="NO_ROUTE")

    async def client(self) -> Client:
        loop = asyncio.get_running_loop()

        def clock() -> float:
            return NOW + loop.time()

        settings = load_settings(request_timeout=3600)
        runtime = runtime_of(self.transport, service="caller", settings=settings, clock=clock)
        client = Client(runtime, client_stack(clock=clock))
        await client.start()
        return client

    def after(self, seconds: float) -> list[float]:
        return [time for time in self.times if time > seconds]


async def cancel(*tasks: asyncio.Task[Any]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def wait(client: Client, number: int, request: Request[Answer] | None = None) -> Any:
    return [
        asyncio.create_task(client.request(request or Ask(), wait_for_service=True))
        for _ in range(number)
    ]


@virtual
async def test_the_publishes_of_one_request_grow_rare() -> None:
    gate = Gate()
    client = await gate.client()
    tasks = wait(client, 1)
    await asyncio.sleep(60)
    await cancel(*tasks)
    waits = [later - earlier for earlier, later in zip(gate.times, gate.times[1:], strict=False)]
    assert 0.05 <= waits[0] <= 0.1
    assert all(0.5 <= each <= 1 for each in waits[5:])
    assert len({round(each, 3) for each in waits[5:]}) > 10, "the waits are random"


@virtual
async def test_a_thousand_waiting_requests_publish_as_often_as_one() -> None:
    gate = Gate()
    client = await gate.client()
    tasks = wait(client, 1000)
    await asyncio.sleep(0.01)
    assert len(gate.times) == 1000, "each request is published once at its start"
    await asyncio.sleep(60)
    assert len(gate.after(0.01)) <= 125
    await cancel(*tasks)
    assert client.waits.services == set()


@virtual
async def test_all_waiting_requests_are_published_soon_after_the_service_has_started() -> None:
    gate = Gate()
    client = await gate.client()
    tasks = wait(client, 1000)
    await asyncio.sleep(20)
    gate.is_open = True
    await asyncio.sleep(12)
    assert len(gate.after(20)) == 1000, "also if no reply has arrived yet"
    await cancel(*tasks)


@virtual
async def test_an_announcement_publishes_the_requests_of_its_service_at_once() -> None:
    gate = Gate()
    client = await gate.client()
    tasks = [*wait(client, 100), *wait(client, 100, AskOther())]
    await asyncio.sleep(20)
    assert client.waits.services == {"late"}
    sent = len(gate.times)
    client.waits.on_started("billing")
    await settle_down()
    assert len(gate.times) == sent
    gate.is_open = True
    client.waits.on_started("late")
    await settle_down()
    assert len(gate.times) == sent + 200
    await cancel(*tasks)


@virtual
async def test_after_a_false_announcement_the_requests_wait_again() -> None:
    gate = Gate()
    client = await gate.client()
    tasks = wait(client, 100)
    await asyncio.sleep(20)
    client.waits.on_started("late")
    await asyncio.sleep(0.01)
    sent = len(gate.times)
    await asyncio.sleep(20)
    assert len(gate.times) - sent <= 45
    await cancel(*tasks)


@virtual
async def test_requests_that_are_cancelled_leave_nothing_behind() -> None:
    gate = Gate()
    client = await gate.client()
    tasks = wait(client, 10)
    await asyncio.sleep(5)
    await cancel(*tasks[:9])
    gate.is_open = True
    await asyncio.sleep(2)
    assert len(gate.after(5)) <= 3
    await cancel(*tasks)
    assert client.waits.ids == {}
    assert client.waits.services == set()


@virtual
async def test_the_error_of_a_wait_is_freed_without_the_garbage_collector() -> None:
    gate = Gate()
    client = await gate.client()
    errors: list[weakref.ref[BaseException]] = []
    gc.collect()
    gc.disable()
    try:
        try:
            await client.request(Ask(), timeout=2, wait_for_service=True)
        except NotServed as error:
            errors += [weakref.ref(each) for each in (error, error.__cause__) if each is not None]
        await asyncio.sleep(2)
        assert [error() for error in errors] == [None, None]  # the error and its cause
    finally:
        gc.enable()


@in_memory
async def test_a_job_of_a_service_that_was_never_deployed_does_not_wait(
    buses: MemoryBuses,
) -> None:
    bus = await buses.bus("caller")
    with pytest.raises(TypeError, match="wait_for_service"):
        await bus.submit(Work(), wait_for_service=True)  # type: ignore[call-arg]
    _, seconds = await fail(bus.submit(Work(), timeout=30), NotServed)
    assert seconds < 0.1
