import asyncio
import contextlib
import gc
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import pytest
import typer

from bus.cli import main, run, take_debug
from bus.cli.process_supervisor import Command
from bus.cli.run import serve_until, signals
from bus.cli.run_together import run_together
from bus.cli.worker_loop import run_worker
from bus.errors import Internal, Unavailable
from bus.runtime.bus import Bus
from bus.runtime.router import Router
from bus.settings import load_settings
from bus.testing import MemoryBroker, MemoryTransport
from tests.unit.ledger import BooksClosed


async def test_a_second_signal_in_the_same_moment_ends_the_stop_that_the_first_began() -> None:
    stop, steps = asyncio.Event(), list[str]()

    async def serve() -> None:
        await stop.wait()
        steps.append("stopping")
        await asyncio.Event().wait()

    serving = asyncio.ensure_future(serve())
    with signals(stop, serving) as received:
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGINT)
        await asyncio.wait([serving], timeout=5)

    assert serving.cancelled()
    assert steps == ["stopping"]
    assert received == [signal.SIGTERM, signal.SIGINT]


async def test_a_second_signal_ends_even_a_stop_that_begins_by_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(run, "CANCEL_AGAIN_SECONDS", 0.01)
    stop, steps = asyncio.Event(), list[str]()

    async def serve() -> None:
        try:
            await asyncio.Event().wait()  # the start does not check `stop`
        finally:
            steps.append("draining")
            await asyncio.Event().wait()

    serving = asyncio.ensure_future(serve())
    with signals(stop, serving):
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGINT)
        await asyncio.wait([serving], timeout=5)

    assert serving.cancelled()
    assert steps == ["draining"]


async def test_one_signal_lets_the_stop_take_its_time() -> None:
    stop, go_on = asyncio.Event(), asyncio.Event()

    async def serve() -> None:
        await stop.wait()
        await go_on.wait()

    serving = asyncio.ensure_future(serve())
    with signals(stop, serving):
        signal.raise_signal(signal.SIGINT)
        await asyncio.wait_for(stop.wait(), 5)
        go_on.set()
        await asyncio.wait_for(serving, 5)


async def test_the_first_signal_after_an_exit_of_the_services_code_is_not_the_second() -> None:
    stop, go_on = asyncio.Event(), asyncio.Event()

    async def serve() -> None:
        await stop.wait()
        await go_on.wait()

    serving = asyncio.ensure_future(serve())
    with signals(stop, serving) as received:
        stop.set()  # as after sys.exit in a background task
        signal.raise_signal(signal.SIGTERM)
        while not received:  # noqa: ASYNC110 - the loop calls the handler in a later turn
            await asyncio.sleep(0)
        for _ in range(3):
            await asyncio.sleep(0)
        go_on.set()
        await asyncio.wait_for(serving, 5)


@pytest.mark.parametrize(("code", "expected"), [(None, 70), (0, 70), (3, 3), ("4711", 70)])
def test_an_exit_of_a_lifespan_ends_the_start_with_an_error(
    code: int | str | None, expected: int, caplog: pytest.LogCaptureFixture
) -> None:
    async def lifespan() -> None:
        sys.exit(code)

    async def serve() -> int:
        await asyncio.ensure_future(lifespan())
        return 0

    assert run_worker(serve(), asyncio.Event()) == expected
    (record,) = caplog.records
    assert record.getMessage().startswith("SystemExit outside of a handler at ")
    assert "test_run.py" in record.__dict__["where"]
    assert "4711" not in caplog.text


def test_an_exit_of_a_background_task_stops_the_service_cleanly(
    caplog: pytest.LogCaptureFixture,
) -> None:
    stop, notes = asyncio.Event(), []

    async def watch() -> None:
        sys.exit("4711")

    async def serve() -> int:
        asyncio.create_task(watch())  # noqa: RUF006 - nothing keeps it
        await stop.wait()
        await asyncio.sleep(0)
        notes.append("stopped cleanly")
        return 0

    assert run_worker(serve(), stop) == 70
    assert notes == ["stopped cleanly"]
    gc.collect()  # asyncio logs the error of a task that was never awaited
    assert "4711" not in caplog.text


def test_each_exit_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    stop = asyncio.Event()

    async def leave() -> None:
        sys.exit("4711")

    async def forward() -> None:
        await asyncio.ensure_future(leave())

    async def serve() -> int:
        await asyncio.wait([asyncio.ensure_future(each) for each in (forward(), forward())])
        return 0

    assert run_worker(serve(), stop) == 70
    lines = [record.getMessage() for record in caplog.records]
    assert [line.partition(" at ")[0] for line in lines] == ["SystemExit outside of a handler"] * 2


def test_a_clean_stop_has_the_exit_code_of_the_service() -> None:
    async def serve() -> int:
        return 143

    assert run_worker(serve(), asyncio.Event()) == 143


async def test_an_error_of_one_service_stops_the_others_cleanly_and_is_raised() -> None:
    steps: list[str] = []

    async def fail() -> None:
        raise Unavailable("no broker")

    async def serve() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            steps.append("stopped")

    with pytest.raises(Unavailable, match="no broker"):
        await run_together({"a": serve(), "b": fail(), "c": serve()}, asyncio.Event())
    assert steps == ["stopped", "stopped"]


@pytest.mark.parametrize("error", [ValueError, SystemExit])
def test_an_error_in_the_stop_of_one_service_does_not_cancel_the_stop_of_the_others(
    error: type[BaseException],
) -> None:
    steps: list[str] = []
    stop, failed = asyncio.Event(), asyncio.Event()

    async def fail() -> None:
        await stop.wait()
        failed.set()
        raise error

    async def drain() -> None:
        await failed.wait()
        for _ in range(9):  # handlers that still run
            await asyncio.sleep(0)
        steps.append("drained")

    async def serve() -> int:
        asyncio.get_running_loop().call_soon(stop.set)
        await run_together({"desk": drain(), "shop": fail()}, stop)
        return 0

    if error is SystemExit:
        assert run_worker(serve(), stop) == os.EX_SOFTWARE
    else:
        with pytest.raises(error):
            run_worker(serve(), stop)
    assert steps == ["drained"]


async def test_a_service_that_loses_its_cancellation_stops_although_another_one_failed() -> None:
    stop = asyncio.Event()

    async def lose_cancellation() -> None:
        with contextlib.suppress(asyncio.CancelledError):  # as a declaration of aiormq can
            await asyncio.Event().wait()
        await stop.wait()

    async def fail() -> None:
        raise Unavailable("no broker")

    with pytest.raises(Unavailable, match="no broker"):
        async with asyncio.timeout(5) as limit:
            await run_together({"desk": lose_cancellation(), "shop": fail()}, stop)
    assert not limit.expired()


async def test_a_service_that_other_code_cancelled_has_failed() -> None:
    steps: list[str] = []

    async def fail() -> None:
        raise asyncio.CancelledError

    async def serve() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            steps.append("stopped")

    with pytest.raises(Internal, match=r"^shop: code of the service or a library cancelled"):
        async with asyncio.timeout(5) as limit:
            await run_together({"desk": serve(), "shop": fail()}, asyncio.Event())
    assert not limit.expired()
    assert steps == ["stopped"]


async def test_each_further_error_has_a_line_of_its_own_without_its_text(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def fail(error: BaseException) -> None:
        raise error

    with pytest.raises(KeyError):
        await run_together(
            {
                "desk": fail(KeyError("Eleonora Quist")),
                "shop": fail(ValueError("Eleonora Quist")),
                "ward": fail(Unavailable("no broker")),
            },
            asyncio.Event(),
        )
    lines = [record.getMessage() for record in caplog.records]
    assert lines[0].startswith("shop failed, too: ValueError at tests/unit/cli/test_run.py:")
    assert lines[1].startswith("ward failed, too: Unavailable: no broker (")
    assert [record.__dict__["service"] for record in caplog.records] == ["shop", "ward"]
    assert "Quist" not in caplog.text


async def test_the_first_error_is_raised_and_no_later_error_is_logged_with_its_text() -> None:
    reported: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(context))

    async def fail_when_cancelled() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            raise KeyError("Eleonora Quist")

    async def fail() -> None:
        await asyncio.sleep(0)
        raise Unavailable("no broker")

    services = {"a": fail_when_cancelled(), "b": fail(), "c": fail_when_cancelled()}
    with pytest.raises(Unavailable, match="no broker"):
        await run_together(services, asyncio.Event())
    gc.collect()
    assert reported == []


async def test_a_second_cancellation_reaches_every_service() -> None:
    steps: list[str] = []

    async def serve(name: str) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            steps.append(f"{name} drains")
            await asyncio.Event().wait()

    services = {name: serve(name) for name in ("one", "two")}
    serving = asyncio.ensure_future(run_together(services, asyncio.Event()))
    for _ in range(2):
        await asyncio.sleep(0)
        serving.cancel()
        await asyncio.sleep(0)
    await asyncio.wait([serving], timeout=5)
    assert serving.cancelled()
    assert sorted(steps) == ["one drains", "two drains"]


@pytest.mark.parametrize(("processes", "reload"), [(2, False), (1, True)])
def test_each_supervised_process_serves_all_routers(
    monkeypatch: pytest.MonkeyPatch, processes: int, reload: bool
) -> None:
    commands: list[Command] = []

    async def run_processes(command: Command) -> int:
        commands.append(command)
        return 0

    monkeypatch.setattr(run, "run_processes", run_processes)
    with pytest.raises(typer.Exit):
        run.command(["desk:router", "shop:router"], processes=processes, reload=reload)
    assert [each.arguments[-3:] for each in commands] == [["run", "desk:router", "shop:router"]]


def noting(name: str, notes: list[str]) -> Callable[[], AbstractAsyncContextManager[None]]:
    @asynccontextmanager
    async def lifespan() -> AsyncIterator[None]:
        notes.append(f"{name} opened")
        try:
            yield
        finally:
            notes.append(f"{name} closed")

    return lifespan


async def test_several_services_start_together_and_stop_together() -> None:
    notes: list[str] = []
    broker, stop = MemoryBroker(), asyncio.Event()
    services = [
        (
            Router(name, lifespan=noting(name, notes)),
            Bus(name, settings=load_settings(auth="off"), transport=MemoryTransport(broker)),
        )
        for name in ("desk", "shop")
    ]

    def on_started() -> None:
        assert all(bus.ready for _, bus in services)
        notes.append("started")
        stop.set()

    async with asyncio.timeout(20):
        await serve_until(services, stop, None, on_started)
    assert (sorted(notes[:2]), notes[2]) == (["desk opened", "shop opened"], "started")
    assert sorted(notes[3:]) == ["desk closed", "shop closed"]


async def test_a_handler_finishes_although_the_lifespan_of_another_service_fails_in_the_stop() -> (
    None
):
    broker, stop, finish = MemoryBroker(), asyncio.Event(), asyncio.Event()
    finished: list[str] = []

    @asynccontextmanager
    async def failing() -> AsyncIterator[None]:
        yield
        asyncio.get_running_loop().call_later(0.05, finish.set)
        raise ValueError

    desk, shop = Router("ledger"), Router("shop", lifespan=failing)

    @desk.event(BooksClosed)
    async def on_closed(event: BooksClosed) -> None:
        stop.set()
        await finish.wait()
        finished.append("event")

    settings = load_settings(auth="off")
    buses = {
        name: Bus(name, settings=settings, transport=MemoryTransport(broker))
        for name in ("ledger", "shop")
    }

    def publish() -> None:
        publishing.append(asyncio.ensure_future(buses["ledger"].publish(BooksClosed())))

    publishing: list[asyncio.Future[None]] = []
    with pytest.raises(ValueError):  # noqa: PT011 - it has no text
        async with asyncio.timeout(20):
            await serve_until([(desk, buses["ledger"]), (shop, buses["shop"])], stop, None, publish)
    await publishing[0]
    assert finished == ["event"]


async def test_a_service_that_other_code_cancels_ends_with_an_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def cancelled(*_: object) -> None:
        raise asyncio.CancelledError

    monkeypatch.setenv("BUS_AUTH", "off")
    monkeypatch.setattr(run, "serve_until", cancelled)
    router, settings = Router("desk"), load_settings(auth="off")
    with pytest.raises(Internal, match=r"^desk: code of the service or a library cancelled"):
        await run.serve([router], settings, None, lambda: None, asyncio.Event())


async def test_a_service_that_cannot_start_stops_the_services_beside_it() -> None:
    notes: list[str] = []
    broker, empty = MemoryBroker(), MemoryBroker()
    empty.stop()
    settings = load_settings(auth="off", connect_timeout=0.2)
    services = [
        (
            Router(name, lifespan=noting(name, notes)),
            Bus(name, settings=settings, transport=MemoryTransport(at)),
        )
        for name, at in (("desk", broker), ("shop", empty))
    ]
    with pytest.raises(Unavailable):
        async with asyncio.timeout(20):
            await serve_until(services, asyncio.Event(), None)
    assert notes == ["desk opened", "desk closed"]


@pytest.mark.parametrize("options", [["--processes", "2"], ["--reload"]])
@pytest.mark.parametrize("debug", [True, False])
def test_debug_is_passed_on_to_the_child_processes(
    debug: bool, options: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[Command] = []

    async def take(command: Command) -> int:
        started.append(command)
        return 0

    monkeypatch.setattr(run, "run_processes", take)
    with pytest.raises(SystemExit) as ended:
        main([*(["--debug"] if debug else []), "run", "library:router", *options])
    assert ended.value.code == 0
    ((program, *arguments),) = [command.arguments for command in started]
    assert program == sys.executable
    assert arguments[:2] == ["-m", "bus.cli"]
    assert take_debug(arguments[2:]) == (debug, ["run", "library:router"])


@pytest.mark.parametrize("debug", [True, False])
def test_debug_shows_all_frames_in_the_log(debug: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    configured: list[dict[str, object]] = []

    async def serve(*_: object) -> None:
        """Serve nothing."""

    def take(_: object, **options: object) -> None:
        configured.append(options)

    monkeypatch.setenv("BUS_AUTH", "off")
    monkeypatch.setattr(run, "serve_until", serve)
    monkeypatch.setattr(run, "configure_logging", take)
    monkeypatch.setattr(run, "load_routers", lambda _: [Router("library")])
    with pytest.raises(SystemExit) as ended:
        main(["run", "library:router", *(["--debug"] if debug else [])])
    assert ended.value.code == 0
    assert configured == [{"overwrite": False, "all_frames": debug}]
