"""Tests of `SyncBus` on the broker in memory."""

import asyncio
import contextvars
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from math import nan
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr
from typing_extensions import override

from bus import (
    Bus,
    ConfigurationError,
    ConnectionLost,
    Context,
    ContractError,
    DeadlineExceeded,
    Envelope,
    Event,
    FailedPrecondition,
    GetInfo,
    Job,
    Message,
    NotFound,
    NotServed,
    Ping,
    Request,
    Router,
    Settings,
    SyncBus,
    SyncJobHandle,
    Target,
    Unavailable,
    contract,
    correlated,
)
from bus.messaging.handler import Handler
from bus.runtime import background_loop
from bus.runtime.background_loop import BackgroundLoop
from bus.runtime.sync_session import LOADED_LATER, Session, changing
from bus.testing import MemoryBuses, SyncMemoryBuses
from bus.transports.memory import MemoryTransport

BUS = Path(__file__).parents[3] / "bus"
NOT_IN_A_CALL = {"cli", "integrations", "operations", "testing"}
"""Packages from which a call of a `SyncBus` loads nothing late."""
WAIT = 20.0
"""Seconds after which a thread of a test counts as hanging."""


class Quote(Message):
    price: int
    trace: str | None = None


@contract("office.quote", version=1, idempotent=True)
class GetQuote(Request[Quote]):
    number: int


@contract("office.slow", version=1)
class Slow(Request[Quote]): ...


@contract("office.count", version=1)
class Count(Job[Quote]):
    to: int


@contract("office.wait", version=1)
class Wait(Job[Quote]): ...


@contract("office.audit", version=1)
class Audit(Job[Quote]): ...


@contract("desk.sold", version=1)
class Sold(Event):
    number: int


@contract("office.moved", version=1)
class Elsewhere(Event): ...


class Office:
    """The service that the tests call."""

    def __init__(self) -> None:
        self.router = Router("office")
        self.slow_has_begun = threading.Event()
        self.go_on = threading.Event()

        @self.router.request(GetQuote)
        async def quote(request: GetQuote, context: Context) -> Quote:
            if request.number < 0:
                raise NotFound("no such number")
            return Quote(price=request.number * 2, trace=context.envelope.correlation_id)

        @self.router.request(Slow)
        async def slow(request: Slow) -> Quote:
            self.slow_has_begun.set()
            await asyncio.to_thread(self.go_on.wait, WAIT)
            return Quote(price=1)

        @self.router.job(Wait)
        async def wait(job: Wait) -> Quote:
            await asyncio.to_thread(self.go_on.wait, WAIT)
            return Quote(price=1)

        @self.router.job(Audit)
        async def audit(job: Audit) -> Quote:
            raise FailedPrecondition("the books are open")

        @self.router.job(Count)
        async def count(job: Count, context: Context) -> Quote:
            for number in range(job.to):
                await context.progress(number / job.to, f"step {number}")
            return Quote(price=job.to)


@pytest.fixture
def office(sync_buses: SyncMemoryBuses) -> Iterator[Office]:
    served = Office()
    sync_buses.serve(served.router, stop_grace=0)
    yield served
    served.go_on.set()


@pytest.fixture
def desk(sync_buses: SyncMemoryBuses, office: Office) -> SyncBus:
    bus = SyncBus("desk")
    sync_buses.connect(bus)
    return bus


@pytest.mark.usefixtures("office")
def test_live_instances_answer_a_synchronous_caller(desk: SyncBus) -> None:
    (answer,) = desk.ask(Ping(), Target("office"), expected=1)
    assert (answer.record.service, answer.record.state) == ("office", "ready")
    (info,) = desk.ask(GetInfo(), Target("office"), expected=1)
    assert "office.quote.v1" in {each.type for each in info.record.contracts}
    assert desk.ask(Ping(), Target("nobody"), window=0.02) == []
    with pytest.raises(ConfigurationError, match="window"):
        desk.ask(Ping(), window=-1)


def test_a_synchronous_caller_without_discovery_gets_an_error(
    sync_buses: SyncMemoryBuses,
) -> None:
    bus = SyncBus("desk")
    sync_buses.connect(bus, discovery="off")
    with pytest.raises(Unavailable, match=r"Set BUS_DISCOVERY=on\."):
        bus.ask(Ping())


def nowhere() -> Settings:
    """Return settings with a port on which nothing listens."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    return Settings(url=SecretStr(f"amqp://127.0.0.1:{port}/"), auth="off", connect_timeout=0.3)


def in_thread(call: Callable[[], Any]) -> tuple[threading.Thread, list[Any]]:
    """Call a function in a thread. The list has its result or error after the thread's end."""
    found: list[Any] = []

    def run() -> None:
        try:
            found.append(call())
        except BaseException as error:  # noqa: BLE001 - the test checks it
            found.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return thread, found


def ended(thread: threading.Thread, found: list[Any]) -> Any:
    thread.join(WAIT)
    assert not thread.is_alive(), "the call hangs"
    return found[0]


def until(condition: Callable[[], object], what: str) -> None:
    limit = time.monotonic() + WAIT
    while not condition():
        assert time.monotonic() < limit, f"waited for {what}"
        time.sleep(0.001)


def test_a_synchronous_request_returns_its_reply(desk: SyncBus) -> None:
    assert desk.request(GetQuote(number=4), timeout=5).price == 8


def test_a_synchronous_caller_receives_the_error_of_the_handler_with_its_class(
    desk: SyncBus,
) -> None:
    with pytest.raises(NotFound, match=r"^office\.quote\.v1: no such number$"):
        desk.request(GetQuote(number=-1))


def test_a_synchronous_event_is_published_when_the_call_returns(
    desk: SyncBus, sync_buses: SyncMemoryBuses
) -> None:
    desk.publish(Sold(number=7))
    assert sync_buses.published(Sold).one().message == Sold(number=7)


def test_a_synchronous_job_gives_its_updates_and_its_result(desk: SyncBus) -> None:
    job = desk.submit(Count(to=3))
    assert isinstance(job, SyncJobHandle)
    assert job.type == "office.count.v1"
    assert [update.note for update in job.updates()] == ["step 0", "step 1", "step 2"]
    assert job.result(timeout=5) == Quote(price=3)
    assert job.result() == Quote(price=3), "a second time"
    assert next(job.updates()).note == "step 0", "an iterator that is not read to its end"


def test_a_result_that_does_not_arrive_in_time_is_an_error(
    desk: SyncBus, sync_buses: SyncMemoryBuses
) -> None:
    sync_buses.run(lambda: sync_buses.broker.cancel_consumers("office.jobs.count.v1"))
    with pytest.raises(DeadlineExceeded, match=r"^office\.count\.v1 \(job .*no result within 0 s"):
        desk.submit(Count(to=1)).result(timeout=0)


def test_a_synchronous_call_that_no_service_serves_fails_at_once(
    sync_buses: SyncMemoryBuses,
) -> None:
    bus = SyncBus("desk")
    sync_buses.connect(bus)
    with pytest.raises(NotServed):
        bus.request(GetQuote(number=1), timeout=60)


def test_each_of_32_threads_gets_the_replies_to_its_own_requests(desk: SyncBus) -> None:
    def calls(thread: int) -> list[int]:
        numbers = range(thread * 1000, thread * 1000 + 20)
        return [
            desk.request(GetQuote(number=each), timeout=WAIT).price // 2 - each for each in numbers
        ]

    with ThreadPoolExecutor(32) as pool:
        assert [*pool.map(calls, range(32))] == [[0] * 20] * 32


def test_a_synchronous_call_uses_the_context_of_its_thread(desk: SyncBus) -> None:
    with correlated("import-7"):
        assert desk.request(GetQuote(number=1)).trace == "import-7"


def test_a_call_in_a_thread_of_a_handler_keeps_its_correlation_id_and_deadline(
    desk: SyncBus, sync_buses: SyncMemoryBuses
) -> None:
    @contract("relay.quote", version=1)
    class Relayed(Request[Quote]): ...

    relay = Router("relay")

    @relay.request(Relayed)
    async def relayed(request: Relayed) -> Quote:
        return await asyncio.to_thread(desk.request, GetQuote(number=1), timeout=60)

    sync_buses.serve(relay)
    with correlated("order-9"):
        assert desk.request(Relayed(), timeout=7).trace == "order-9"
    cause = sync_buses.requested(Relayed).one().envelope
    inner = sync_buses.requested(GetQuote).one().envelope
    assert inner.causation_id == cause.id
    assert cause.deadline is not None
    assert inner.deadline is not None
    assert abs(inner.deadline - cause.deadline) < 40_000, "not 60 s, and a leeway of 30 s"


async def test_a_call_in_the_thread_of_an_event_loop_is_refused() -> None:
    bus = SyncBus("desk", settings=nowhere())
    with pytest.raises(
        FailedPrecondition,
        match=r"^the SyncBus of 'desk' was used in a thread with a running event loop, which it "
        r"would block\. Use `await` with a Bus there",
    ):
        bus.publish(Sold(number=1))


def test_an_interrupted_wait_ends_and_cancels_its_call(desk: SyncBus, office: Office) -> None:
    main = threading.get_ident()

    def interrupt() -> None:
        office.slow_has_begun.wait(WAIT)
        signal.pthread_kill(main, signal.SIGINT)

    thread, _ = in_thread(interrupt)
    with pytest.raises(KeyboardInterrupt):
        desk.request(Slow(), timeout=60)
    thread.join()
    session = desk._session
    assert session is not None
    assert session._bus is not None
    calls = session._bus._client.replies._calls
    until(lambda: not calls, "the end of the call in the loop")
    assert desk.request(GetQuote(number=3)).price == 6, "the bus can still be used"


def test_an_exit_in_a_middleware_reaches_the_calling_thread() -> None:
    def leaving(inner: Handler) -> Handler:
        async def call(envelope: Envelope) -> Envelope | None:
            raise SystemExit(3)

        return call

    assert _run_through(leaving, SystemExit).code == 3


def test_a_cancelled_call_is_an_error_and_not_a_hang() -> None:
    def cancelled(inner: Handler) -> Handler:
        async def call(envelope: Envelope) -> Envelope | None:
            raise asyncio.CancelledError

        return call

    assert "was cancelled before it ended" in str(_run_through(cancelled, ConnectionLost))


def _run_through(middleware: Callable[[Handler], Handler], kind: type[Any]) -> Any:
    """Return the error of a call that only a middleware handles."""
    loop = BackgroundLoop("a loop", _nothing)

    async def innermost(envelope: Envelope) -> None: ...

    handler: Callable[[Any], Awaitable[Any]] = middleware(innermost)

    async def work() -> Any:
        return await handler(None)

    try:
        with pytest.raises(kind) as caught:
            loop.run(work)
        assert loop.run(_one) == 1, "the loop continues"
    finally:
        loop.stop()
    return caught.value


async def _nothing() -> None: ...


async def _one() -> int:
    return 1


def test_a_loop_that_ends_unexpectedly_fails_the_calls_in_it(
    caplog: pytest.LogCaptureFixture,
) -> None:
    loop = BackgroundLoop("the bus", _nothing)
    begun = threading.Event()

    async def wait() -> None:
        begun.set()
        await asyncio.Event().wait()

    thread, found = in_thread(lambda: loop.run(wait))
    assert begun.wait(WAIT)

    def leave() -> None:
        raise SystemExit

    loop.run_soon(leave)
    assert isinstance(ended(thread, found), ConnectionLost)
    until(lambda: not loop.is_running, "the end of the loop")
    assert "the bus: its event loop ended unexpectedly (SystemExit" in caplog.text
    with pytest.raises(Unavailable, match="the bus was closed"):
        loop.run(_one)


def test_a_closed_synchronous_bus_refuses_calls_until_it_is_entered_again(
    sync_buses: SyncMemoryBuses, office: Office, desk: SyncBus
) -> None:
    desk.close()
    with pytest.raises(Unavailable, match=r"^the SyncBus of 'desk' was closed\. Enter it again"):
        desk.publish(Sold(number=1))
    with desk:
        desk.publish(Sold(number=2))
    assert sync_buses.published(Sold).messages == [Sold(number=2)]


def test_close_ends_the_calls_of_other_threads_with_an_error(
    sync_buses: SyncMemoryBuses, desk: SyncBus, office: Office
) -> None:
    thread, found = in_thread(lambda: desk.request(Slow(), timeout=60))
    assert office.slow_has_begun.wait(WAIT)
    sync_buses.run(sync_buses.buses._open.aclose)  # closes the buses, as `close` does
    office.go_on.set()
    error = ended(thread, found)
    assert isinstance(error, ConnectionLost)
    assert str(error).startswith("office.slow.v1: the bus was closed before the reply arrived")


def test_a_job_handle_of_a_closed_bus_keeps_what_has_arrived(desk: SyncBus) -> None:
    done, waiting = desk.submit(Count(to=1)), desk.submit(Wait())
    assert done.result(timeout=5) == Quote(price=1)
    ended_loop = BackgroundLoop("another loop", _nothing)
    ended_loop.stop()
    done._session.loop = waiting._session.loop = ended_loop  # as after `close`
    assert done.result() == Quote(price=1)
    assert [update.note for update in done.updates()] == ["step 0"]
    closed = r"^office\.wait\.v1 \(job .*\): the bus was closed before the result arrived"
    with pytest.raises(ConnectionLost, match=closed):
        waiting.result()
    with pytest.raises(ConnectionLost, match=closed):
        next(waiting.updates())


def test_close_tells_a_waiting_reader_of_a_job_that_the_job_continues(office: Office) -> None:
    buses = MemoryBuses()

    def create() -> Bus:
        transport = MemoryTransport(buses.broker, clock=buses.clock)
        return Bus("desk", settings=nowhere(), transport=transport)

    async def serve() -> None:
        await buses.serve(await buses.bus("office"), office.router)

    session = Session("desk", create)
    session.loop.run(serve)
    bus = SyncBus("desk")
    bus._new_session = lambda: session
    job = bus.submit(Wait())
    waits = [in_thread(job.result), in_thread(lambda: next(job.updates()))]
    until(lambda: len(session.loop._calls) == 2, "the two readers")
    closing = in_thread(bus.close)
    errors = [ended(*each) for each in waits]
    office.go_on.set()
    ended(*closing)
    for error in errors:
        assert isinstance(error, ConnectionLost)
        assert str(error) == (
            f"office.wait.v1 (job {job.id}): the bus was closed before the result arrived. "
            "The job continues."
        )


FORKED_IN_A_THREAD = """
import os, threading
from bus.runtime.background_loop import BackgroundLoop

async def nothing(): return 1

def work():
    child = os.fork()
    if child:
        print(os.waitpid(child, 0)[1])
    else:
        BackgroundLoop("the bus", nothing).run(nothing)

thread = threading.Thread(target=work)
thread.start()
thread.join()
"""


def test_a_child_that_a_thread_has_forked_ends_when_its_thread_returns() -> None:
    program = (sys.executable, "-c", FORKED_IN_A_THREAD)
    run = subprocess.run(program, capture_output=True, text=True, timeout=WAIT, check=True)
    assert run.stdout == "0\n", run.stderr


def test_a_job_handle_of_a_closed_bus_raises_the_error_of_the_job(desk: SyncBus) -> None:
    failed = desk.submit(Audit())
    with pytest.raises(FailedPrecondition, match="the books are open"):
        failed.result(timeout=5)
    failed._session.loop = BackgroundLoop("another loop", _nothing)
    failed._session.loop.stop()  # as after `close`
    with pytest.raises(FailedPrecondition, match="the books are open"):
        failed.result()


async def test_a_block_in_an_event_loop_does_not_close_the_bus_of_other_threads(
    office: Office, desk: SyncBus
) -> None:
    with pytest.raises(FailedPrecondition, match="with a running event loop"), desk:
        pass
    reply = await asyncio.to_thread(desk.request, GetQuote(number=4), timeout=5)
    assert reply.price == 8


def test_a_bus_that_cannot_connect_in_its_block_leaves_no_thread() -> None:
    bus = SyncBus("desk", settings=nowhere())
    with pytest.raises(Unavailable, match="cannot be reached"), bus:
        pass
    assert not [each for each in threading.enumerate() if each.name == "the SyncBus of 'desk'"]


def _open(desk: SyncBus) -> Session:
    desk.request(GetQuote(number=1), timeout=5)
    session = desk._session
    assert session is not None
    return session


def test_a_block_that_is_interrupted_leaves_a_bus_that_was_open_open(
    desk: SyncBus, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = _open(desk)

    def interrupted() -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(session, "connect", interrupted)
        with pytest.raises(KeyboardInterrupt), desk:
            raise AssertionError
    assert desk.request(GetQuote(number=2), timeout=5).price == 4


def test_a_block_that_cannot_connect_leaves_a_call_of_another_thread_undisturbed() -> None:
    bus = SyncBus("desk", settings=nowhere())
    begun, go_on = threading.Event(), threading.Event()

    async def wait() -> int:
        begun.set()
        return await asyncio.to_thread(go_on.wait, WAIT)

    calls = []

    class Failing(Session):
        @override
        def connect(self) -> None:
            calls.append(in_thread(lambda: self.loop.run(wait)))
            assert begun.wait(WAIT)
            raise Unavailable("no broker")

    create = bus._new_session
    bus._new_session = lambda: Failing("desk", create()._create)
    with pytest.raises(Unavailable, match="no broker"), bus:
        raise AssertionError
    go_on.set()
    assert ended(*calls[0]) is True
    bus.close()


def test_a_block_that_cannot_connect_keeps_a_closed_bus_closed_and_a_new_one_usable() -> None:
    bus = SyncBus("desk", settings=nowhere())
    for _ in range(2):
        with pytest.raises(Unavailable, match="cannot be reached"), bus:
            raise AssertionError
    with pytest.raises(Unavailable, match="cannot be reached"):
        bus.publish(Sold(number=1))
    bus.close()
    with pytest.raises(Unavailable, match="cannot be reached"), bus:
        raise AssertionError
    with pytest.raises(Unavailable, match="was closed"):
        bus.publish(Sold(number=1))


def test_the_calling_thread_creates_the_bus_while_no_process_can_be_forked() -> None:
    bus = SyncBus("desk", settings=nowhere())
    found: list[tuple[int, object, bool]] = []

    def create() -> Bus:
        is_free = ended(*in_thread(lambda: changing.acquire(blocking=False)))
        has_loop = any(each.name == "the SyncBus of 'new'" for each in threading.enumerate())
        found.append((threading.get_ident(), is_free, has_loop))
        return Bus("desk", settings=nowhere())

    bus._new_session = lambda: Session("new", create)
    for _ in range(2):
        with pytest.raises(Unavailable, match="cannot be reached"):
            bus.publish(Sold(number=1))
    bus.close()
    first, second = found
    assert first == (threading.get_ident(), False, False)
    assert second[:2] == (threading.get_ident(), False), "after an attempt has failed"


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(background_loop, "LATE_SECONDS", 0.0)
    monkeypatch.setattr(background_loop, "ANSWER_SECONDS", 0.05)


@pytest.mark.usefixtures("impatient")
def test_a_call_ends_although_its_event_loop_is_blocked() -> None:
    loop = BackgroundLoop("the bus", _nothing)
    go_on, begun = threading.Event(), []

    async def block() -> None:
        begun.append("block")
        go_on.wait(WAIT)

    async def late() -> None:
        begun.append("late")

    try:
        with pytest.raises(
            DeadlineExceeded, match=r"^the bus: its event loop has not run for 0\.05 s"
        ) as ended_late:
            loop.run(block, 0.01)
        assert ended_late.value.maybe_executed
        with pytest.raises(Unavailable, match="the call was not begun") as not_begun:
            loop.run(late, 0.01)
        assert not not_begun.value.maybe_executed
        go_on.set()
        assert loop.run(_one) == 1
        assert begun == ["block"], "an abandoned call never begins"
    finally:
        loop.stop()


@pytest.mark.usefixtures("impatient")
def test_a_call_that_its_bus_lets_take_longer_continues_while_the_event_loop_runs() -> None:
    loop = BackgroundLoop("the bus", _nothing)
    try:
        assert loop.run(lambda: asyncio.sleep(0.1, "done"), 0.001) == "done"
    finally:
        loop.stop()


@pytest.mark.parametrize(
    ("call", "kind", "text"),
    [
        (lambda bus: bus.request(GetQuote(number=1), timeout=-1), ConfigurationError, "timeout"),
        (lambda bus: bus.publish(Sold(number=1), timeout=nan), ConfigurationError, "timeout"),
        (lambda bus: bus.submit(Count(to=1), timeout="2"), ConfigurationError, "timeout"),
        (lambda bus: bus.publish(Elsewhere()), ContractError, "belongs to office"),
        (lambda bus: bus.request(Sold(number=1)), ContractError, "of kind event"),
        (lambda bus: bus.submit(None), ContractError, "not None"),
    ],
)
def test_a_wrong_argument_is_refused_before_the_bus_connects(
    call: Callable[[SyncBus], Any], kind: type[Exception], text: str
) -> None:
    bus = SyncBus("desk", settings=nowhere())
    with pytest.raises(kind, match=text):
        call(bus)
    assert bus._session is None


def test_a_middleware_can_close_the_bus_in_which_it_runs() -> None:
    loop = BackgroundLoop("the bus", _nothing)

    async def close() -> None:
        loop.stop()
        await asyncio.Event().wait()

    with pytest.raises(ConnectionLost, match="the bus was closed before the call ended"):
        loop.run(close)
    until(lambda: not loop.is_running, "the end of the loop")


def test_a_first_call_without_a_broker_ends_within_its_timeout() -> None:
    bus = SyncBus("desk", settings=nowhere().model_copy(update={"connect_timeout": 60}))
    began = time.monotonic()
    with pytest.raises(
        Unavailable, match=r"^the SyncBus of 'desk' was not connected within 0\.05 s, so the mess"
    ):
        bus.request(GetQuote(number=1), timeout=0.05)
    assert time.monotonic() - began < 30
    bus.close()


def test_all_threads_wait_for_the_same_attempt_to_connect() -> None:
    bus = SyncBus("desk", settings=nowhere())
    barrier = threading.Barrier(8)

    def call() -> None:
        barrier.wait(WAIT)
        bus.publish(Sold(number=1))

    began = time.monotonic()
    errors = [ended(*each) for each in [in_thread(call) for _ in range(8)]]
    assert {type(error) for error in errors} == {Unavailable}
    assert len({id(error) for error in errors}) == 8, "each thread raises its own error"
    assert all("cannot be reached" in str(error) for error in errors)
    assert time.monotonic() - began < 8 * 0.3, "not one after the other"
    bus.close()


def test_the_settings_are_read_at_the_first_call(monkeypatch: pytest.MonkeyPatch) -> None:
    bus = SyncBus("desk")
    monkeypatch.setenv("BUS_AUTH", "nonsense")
    with pytest.raises(ConfigurationError, match="BUS_AUTH"):
        bus.publish(Sold(number=1))
    bus.close()


def test_a_session_loads_the_modules_that_a_bus_loads_late_before_its_thread_starts() -> None:
    late = {
        name
        for file in BUS.rglob("*.py")
        if file.relative_to(BUS).parts[0] not in NOT_IN_A_CALL
        for name in re.findall(r"import_module\(\s*\"(bus\.[^\"]+)\"", file.read_text())
    }
    assert late
    by_spans = {"bus.middleware.spans.recording"}  # only if the application uses OpenTelemetry
    # Only for a store, and before the thread starts: `Bus` creates the store and its engine.
    by_store = {name for name in late if name.startswith("bus.storage.sqlalchemy.")}
    assert late - by_spans - by_store <= {*LOADED_LATER}


def test_a_session_loads_the_recording_of_spans_if_the_application_uses_opentelemetry(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    loaded: list[str] = []
    monkeypatch.setattr("bus.middleware.spans.import_module", loaded.append)
    monkeypatch.delitem(sys.modules, "opentelemetry.trace", raising=False)
    Session("desk", lambda: Bus("desk", settings=nowhere())).stop()
    assert loaded == []
    monkeypatch.setitem(sys.modules, "opentelemetry.trace", sys)
    Session("desk", lambda: Bus("desk", settings=nowhere())).stop()
    assert loaded == ["bus.middleware.spans.recording"]


def test_the_connection_does_not_keep_the_context_of_its_first_caller() -> None:
    seen: list[str | None] = []
    variable: contextvars.ContextVar[str | None] = contextvars.ContextVar("of", default=None)
    bus = SyncBus("desk", settings=nowhere())

    def create() -> Bus:
        seen.append(variable.get())
        return Bus("desk", settings=nowhere())

    bus._new_session = lambda: Session("desk", create)
    variable.set("the first caller")
    with pytest.raises(Unavailable):
        bus.publish(Sold(number=1))
    bus.close()
    assert seen == [None]


def test_a_synchronous_bus_checks_its_arguments_before_it_connects() -> None:
    with pytest.raises(ContractError):
        SyncBus("Not A Name")
    with pytest.raises(ConfigurationError, match="settings must be"):
        SyncBus("desk", settings={})  # type: ignore[arg-type]


def test_a_bus_that_is_dropped_ends_its_thread_with_a_warning() -> None:
    bus = SyncBus("desk", settings=nowhere())
    with pytest.raises(Unavailable):
        bus.publish(Sold(number=1))
    session = bus._session
    assert session is not None
    with pytest.warns(ResourceWarning, match="the SyncBus of 'desk' was not closed"):
        del bus
    until(lambda: not session.loop.is_running, "the end of the thread")


def test_a_call_during_a_restart_of_the_broker_ends_and_later_calls_work(
    sync_buses: SyncMemoryBuses, desk: SyncBus
) -> None:
    sync_buses.run(sync_buses.broker.stop)
    with pytest.raises(Unavailable):
        desk.publish(Sold(number=1), timeout=0.05)
    thread, found = in_thread(lambda: desk.request(GetQuote(number=5), timeout=WAIT))
    sync_buses.run(sync_buses.broker.start)
    assert ended(thread, found).price == 10
    assert desk.request(GetQuote(number=6)).price == 12
