"""Failures of handlers: their location, their note, and the switch BUS_DEBUG."""

import asyncio
import gc
import logging
import re
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from typing_extensions import override

from bus.contracts.retry_policy import RetryPolicy
from bus.errors import (
    BusError,
    ConfigurationError,
    DeadlineExceeded,
    Internal,
    NotFound,
    Unavailable,
)
from bus.messaging.envelope import Envelope
from bus.messaging.failure_location import failure_location
from bus.messaging.failure_note import add_failure_note
from bus.messaging.labels import message_label
from bus.runtime.bus import Bus
from bus.runtime.inbound_message import HandlingResult, InboundMessage
from bus.runtime.job_reports import JobReports
from bus.runtime.router import Router
from bus.runtime.service_activator import ServiceActivator, ServiceStack
from bus.settings import Settings, load_settings
from bus.testing import MemoryBroker, MemoryBuses, MemoryTransport
from bus.transports.memory.consumer import MemoryConsumer
from tests.unit.fakes import (
    FakeDelivery,
    FakeTransport,
    NoSender,
    envelope,
    state_of,
    virtual,
)
from tests.unit.ledger import Add, CloseBooks, Total

SECRET = "Eleonora Quist"
HERE = r"tests/unit/runtime/test_failures\.py:\d+"
UUID = "a067102e-0000-4000-8000-000000000000"
QUEUE = "ledger.jobs.close.v1"


def notes_of(error: BaseException) -> list[str]:
    return getattr(error, "__notes__", [])


async def handled(
    handler: Callable[[Envelope], Any], **attributes: Any
) -> tuple[HandlingResult, Envelope]:
    """Let the service activator handle a message with this stack."""
    router = Router("ledger")

    @router.request(Add)
    async def add(_: Add) -> Total:
        return Total(total=1)

    state = state_of(router, FakeTransport())
    activator = ServiceActivator(
        state, ServiceStack(handler=handler, sender=NoSender()), JobReports(state.runtime)
    )
    message = envelope(id=UUID, **attributes)
    return await activator.handle(InboundMessage(FakeDelivery(message))), message


async def refuse() -> None:
    raise NotFound


async def cancel() -> None:
    future = asyncio.get_running_loop().create_future()
    future.cancel()
    await future


# --- Notes ---


@virtual
async def test_the_error_of_a_handler_has_a_note_with_the_message_and_the_location() -> None:
    async def quote(_: Envelope) -> None:
        raise KeyError(SECRET)

    result, _ = await handled(quote)
    assert result.error is not None
    (note,) = notes_of(result.error)
    assert re.fullmatch(rf"ledger\.add\.v1 a067102e: failed at {HERE} quote", note)


@virtual
async def test_an_error_that_is_raised_again_has_only_its_last_note() -> None:
    error = KeyError(SECRET)
    error.add_note("a note of the handler")

    async def quote(_: Envelope) -> None:
        raise error

    for _ in range(3):
        await handled(quote)
    await handled(quote, type_="ledger.close.v1")
    theirs, ours = notes_of(error)
    assert theirs == "a note of the handler"
    assert ours.startswith("ledger.close.v1 a067102e: failed at ")


@virtual
async def test_an_error_that_refuses_notes_is_handled_all_the_same() -> None:
    @dataclass(frozen=True)
    class Frozen(Exception):
        reason: str

    class Strange(Exception):
        __notes__ = ()  # type: ignore[assignment]

    async def freeze(_: Envelope) -> None:
        raise Frozen("solid")

    async def strange(_: Envelope) -> None:
        raise Strange

    assert isinstance((await handled(freeze))[0].error, Frozen)
    assert isinstance((await handled(strange))[0].error, Strange)


@virtual
async def test_a_panic_of_native_code_has_a_note_and_a_location(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Panic(BaseException):
        pass

    async def quote(_: Envelope) -> None:
        raise Panic(SECRET)

    result, _ = await handled(quote)
    assert result.error is not None
    assert len(notes_of(result.error)) == 1
    assert re.fullmatch(rf"{HERE} quote", vars(caplog.records[0])["where"])
    assert SECRET not in str(vars(caplog.records[0]))


def test_an_error_that_was_never_raised_has_a_note_without_a_location() -> None:
    error = NotFound()
    add_failure_note(error, envelope(id=UUID))
    assert notes_of(error) == ["ledger.add.v1 a067102e: failed"]


# --- Errors that the bus raises instead of the handler's ---


def slow() -> Router:
    router = Router("ledger")

    @router.request(Add)
    async def add(_: Add) -> Total:
        await asyncio.Event().wait()
        return Total(total=1)

    return router


@virtual
async def test_a_handler_that_took_too_long_is_located_where_it_waited(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO", "bus.messages")
    async with MemoryBuses() as buses:
        ledger = await buses.bus("ledger")
        await buses.serve(ledger, slow())
        with pytest.raises(DeadlineExceeded):
            await ledger.request(Add(), timeout=0.5)
    (record,) = [record for record in caplog.records if record.name == "bus.messages"]
    assert re.fullmatch(rf"{HERE} add", vars(record)["where"])


@virtual
async def test_a_cancelled_future_is_located_where_the_handler_awaited_it() -> None:
    async def quote(_: Envelope) -> None:
        future = asyncio.get_running_loop().create_future()
        future.cancel()
        await future

    result, _ = await handled(quote)
    assert result.error is not None
    assert re.fullmatch(rf"{HERE} quote", failure_location(result.error) or "")


@pytest.mark.parametrize("wait", [refuse, cancel])
@virtual
async def test_a_failed_message_is_freed_without_the_garbage_collector(
    wait: Callable[[], Any],
) -> None:
    async def quote(_: Envelope) -> None:
        await wait()

    gc.collect()
    gc.disable()
    try:
        result, _ = await handled(quote)
        assert result.error is not None
        error = weakref.ref(result.error)
        del result
        assert error() is None
    finally:
        gc.enable()


@virtual
async def test_an_error_that_cannot_be_sent_keeps_its_location(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Wrong(BusError):
        retryable = 5  # type: ignore[assignment]

    async def quote(_: Envelope) -> None:
        raise Wrong

    result, _ = await handled(quote)
    assert result.error is not None
    assert re.fullmatch(rf"{HERE} quote", failure_location(result.error) or "")
    assert re.fullmatch(rf"{HERE} quote", vars(caplog.records[0])["where"])


# --- BUS_DEBUG ---


def failing() -> Router:
    router = Router("ledger")

    @router.job(CloseBooks, retry=RetryPolicy(attempts=1))
    async def close(_: CloseBooks) -> Total:
        raise KeyError(SECRET)

    @router.request(Add)
    async def add(_: Add) -> Total:
        raise KeyError(SECRET)

    return router


def shown(record: logging.LogRecord) -> str:
    return f"{logging.Formatter().format(record)} {vars(record)}"


async def fail_everywhere(**settings: Any) -> str:
    """Let a request and a job fail. Return all that leaves the process of the service."""
    async with MemoryBuses() as buses:
        ledger = await buses.bus("ledger", **settings)
        await buses.serve(ledger, failing())
        office = await buses.bus("office")
        with pytest.raises(Internal) as of_request:
            await office.request(Add(), timeout=5)
        job = await office.submit(CloseBooks())
        with pytest.raises(Internal) as of_job:
            await job.result(timeout=5)
        (letter,) = await ledger.dead_letters(QUEUE)
        return f"{of_request.value!r} {of_job.value!r} {letter.headers} {letter.record}"


@virtual
async def test_with_debug_texts_and_tracebacks_are_in_the_log_and_nowhere_else(
    caplog: pytest.LogCaptureFixture,
) -> None:
    sent = await fail_everywhere(debug=True)
    lines = [shown(record) for record in caplog.records if record.name == "bus.messages"]
    assert len(lines) == 2
    assert all("Traceback" in line and f"KeyError: '{SECRET}'" in line for line in lines)
    assert SECRET not in sent
    assert "Traceback" not in sent


@virtual
async def test_without_debug_no_text_and_no_traceback_is_in_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("DEBUG", "bus")
    assert SECRET not in await fail_everywhere()
    assert caplog.records
    assert not [line for line in map(shown, caplog.records) if SECRET in line]
    assert all(record.exc_info is None for record in caplog.records)


@virtual
async def test_debug_of_one_bus_does_not_reach_another_in_the_same_process(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with MemoryBuses() as buses:
        await buses.bus("office", debug=True)
        ledger = await buses.bus("ledger")
        await buses.serve(ledger, failing())
        with pytest.raises(Internal):
            await ledger.request(Add(), timeout=5)
    assert not [line for line in map(shown, caplog.records) if SECRET in line]


@virtual
async def test_debug_shows_the_bugs_of_supervised_steps(caplog: pytest.LogCaptureFixture) -> None:
    class Broken(MemoryTransport):
        @override
        async def _step(self) -> None:
            raise KeyError(SECRET)

    settings = Settings(auth="off", debug=True, connect_timeout=1)
    bus = Bus("ledger", settings=settings, transport=Broken(MemoryBroker()))
    with pytest.raises(Unavailable):
        async with bus:
            pass
    assert [line for line in map(shown, caplog.records) if f"KeyError: '{SECRET}'" in line]


@virtual
async def test_debug_shows_the_bugs_of_consumers(caplog: pytest.LogCaptureFixture) -> None:
    async def fail(_: MemoryConsumer) -> None:
        raise KeyError(SECRET)

    async with MemoryBuses() as buses:
        with pytest.MonkeyPatch.context() as patch:
            ledger = await buses.bus("ledger", debug=True, start_timeout=1)
            patch.setattr(MemoryConsumer, "_step", fail)
            with pytest.raises(Unavailable):
                await buses.serve(ledger, failing())
            of_handlers = [line for line in map(shown, caplog.records) if SECRET in line]
            caplog.clear()
            with pytest.raises(Unavailable):
                await buses.bus("office", debug=True, start_timeout=1)
            of_replies = [line for line in map(shown, caplog.records) if SECRET in line]
    assert of_handlers
    assert of_replies


@virtual
async def test_a_bus_with_debug_warns_of_it_when_it_is_created(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with MemoryBuses() as buses:
        await buses.bus("ledger", debug=True)
    assert any(record.getMessage().startswith("BUS_DEBUG is set") for record in caplog.records)


def test_debug_is_refused_with_authentication() -> None:
    text = "BUS_DEBUG: must not be set with BUS_AUTH=on"
    with pytest.raises(ConfigurationError, match=text):
        load_settings(debug=True, auth="on")
    with pytest.raises(ConfigurationError, match=text):
        load_settings(debug=True, auth="on", url="http://wrong")
    settings = load_settings(debug=True, auth="off").model_copy(update={"auth": "on"})
    with pytest.raises(ConfigurationError, match=text.replace(":", "")):
        Bus("ledger", settings=settings)


@pytest.mark.parametrize("auth", ["dev", "off"])
def test_debug_is_a_setting_of_the_environment(auth: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BUS_DEBUG", "1")
    assert load_settings(auth=auth).debug
    monkeypatch.delenv("BUS_DEBUG")
    assert not load_settings(auth=auth).debug


def test_a_note_names_a_message_like_a_log_line_does() -> None:
    error = NotFound("no such account")
    message = envelope(id="order-2026-000123")
    add_failure_note(error, message)
    assert notes_of(error) == [f"{message_label(message)}: failed"]
    assert "order-2026-000123" in notes_of(error)[0]
