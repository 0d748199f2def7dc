"""Tests of `request(…, fallback=…)` on the broker in memory."""

import asyncio
import logging
import threading
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from pydantic import SecretStr

from bus import (
    Aborted,
    Bus,
    BusError,
    ConnectionLost,
    Context,
    ContractError,
    ContractViolation,
    DeadlineExceeded,
    FailedPrecondition,
    Internal,
    InvalidArgument,
    Message,
    NotFound,
    NotServed,
    PermissionDenied,
    Request,
    ResourceExhausted,
    Router,
    Settings,
    SyncBus,
    Unauthenticated,
    Unavailable,
    contract,
)
from bus.messaging.fallback import is_covered
from bus.testing import MemoryBuses, SyncMemoryBuses
from tests.unit.runtime.in_memory import in_memory


class Price(Message):
    price: int


class Word(Message):
    word: str


@contract("market.price", version=1)
class GetPrice(Request[Price]):
    pass


@contract("market.find", version=1)
class FindPrice(Request[Price | None]):
    pass


@contract("market.close", version=1)
class Close(Request[None]):
    pass


@contract("market.pass-on", version=1)
class PassOn(Request[Price]):
    pass


UNKNOWN = Price(price=-1)
Act = Callable[[], Coroutine[Any, Any, Price]]


def market(act: Act) -> Router:
    router = Router("market")

    @router.request(GetPrice)
    async def price(_: GetPrice) -> Price:
        return await act()

    return router


def failing(error: BaseException) -> Act:
    async def act() -> Price:
        raise error

    return act


async def shop(buses: MemoryBuses, act: Act | None = None) -> Bus:
    if act is not None:
        await buses.serve(await buses.bus("market"), market(act))
    return await buses.bus("shop")


def number_of(bus: Bus, name: str) -> float:
    return sum(each.value for each in bus.report.stats().series if each.name == name)


@in_memory
async def test_a_caller_receives_its_fallback_if_no_service_answers(buses: MemoryBuses) -> None:
    bus = await shop(buses)
    assert await bus.request(GetPrice(), fallback=UNKNOWN) is UNKNOWN


@in_memory
async def test_a_caller_receives_the_reply_and_not_its_fallback(buses: MemoryBuses) -> None:
    async def act() -> Price:
        return Price(price=3)

    bus = await shop(buses, act)
    assert await bus.request(GetPrice(), fallback=UNKNOWN) == Price(price=3)
    assert number_of(bus, "fallbacks") == 0


@pytest.mark.parametrize(
    "error",
    [
        Unavailable("down"),
        ResourceExhausted("full"),
        DeadlineExceeded("late"),
        ConnectionLost("lost", maybe_executed=True),
        NotServed("nobody"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_a_function_receives_an_error_of_a_service_that_does_not_work(error: BusError) -> None:
    @in_memory
    async def run(buses: MemoryBuses) -> None:
        seen: list[BusError] = []

        def fallback(error: BusError) -> Price:
            seen.append(error)
            return UNKNOWN

        bus = await shop(buses, failing(error))
        assert await bus.request(GetPrice(), timeout=2, fallback=fallback) is UNKNOWN
        assert [each.code for each in seen] == [error.code]
        assert str(seen[0]).startswith("market.price.v1: ")
        assert seen[0].origin == "service"

    run()


@pytest.mark.parametrize(
    "error",
    [
        NotFound("none"),
        InvalidArgument("bad"),
        PermissionDenied("no"),
        FailedPrecondition("not now"),
        Aborted("conflict"),
        ValueError("bug"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_an_error_about_the_request_itself_reaches_the_caller(error: Exception) -> None:
    @in_memory
    async def run(buses: MemoryBuses) -> None:
        bus = await shop(buses, failing(error))
        with pytest.raises(type(error) if isinstance(error, BusError) else Internal):
            await bus.request(GetPrice(), timeout=2, fallback=UNKNOWN)
        assert number_of(bus, "fallbacks") == 0

    run()


@pytest.mark.parametrize(
    ("error", "covered"),
    [
        (Unavailable("breaker open"), True),
        (ContractViolation("x"), False),
        (Unauthenticated("x"), False),
        (asyncio.CancelledError(), False),
        (TypeError("bug"), False),
    ],
    ids=lambda value: type(value).__name__,
)
def test_only_an_error_of_a_system_that_does_not_work_is_covered(
    error: BaseException, covered: bool
) -> None:
    assert is_covered(error) is covered


@in_memory
async def test_a_lost_connection_is_covered(buses: MemoryBuses) -> None:
    started = asyncio.Event()

    async def act() -> Price:
        started.set()
        await asyncio.sleep(60)
        return Price(price=3)

    bus = await shop(buses, act)
    asking = asyncio.ensure_future(bus.request(GetPrice(), timeout=20, fallback=UNKNOWN))
    await started.wait()
    buses.broker.stop()
    assert await asking is UNKNOWN


@in_memory
async def test_a_function_that_returns_none_lets_the_error_through(buses: MemoryBuses) -> None:
    bus = await shop(buses)
    with pytest.raises(NotServed):
        await bus.request(GetPrice(), fallback=lambda error: None)


@in_memory
async def test_none_is_a_fallback_if_it_is_a_reply(buses: MemoryBuses) -> None:
    bus = await shop(buses)
    assert await bus.request(FindPrice(), fallback=lambda error: None) is None
    await bus.request(Close(), fallback=lambda error: None)
    assert await bus.request(FindPrice(), fallback=UNKNOWN) is UNKNOWN
    with pytest.raises(NotServed):
        await bus.request(FindPrice(), fallback=None)


@in_memory
async def test_a_function_that_fails_raises_its_own_error_after_the_error_of_the_request(
    buses: MemoryBuses,
) -> None:
    def fallback(error: BusError) -> Price:
        raise LookupError("no last price")

    bus = await shop(buses)
    with pytest.raises(LookupError, match="no last price") as caught:
        await bus.request(GetPrice(), fallback=fallback)
    assert isinstance(caught.value.__context__, NotServed)


async def _later(error: BusError) -> Price:
    return UNKNOWN


@pytest.mark.parametrize(
    ("fallback", "given"),
    [(Word(word="x"), "Word"), (Price, "the class Price"), (7, "int"), (_later, "synchronous")],
    ids=["message", "class", "number", "coroutine"],
)
def test_a_fallback_that_is_not_a_reply_is_refused_before_the_request_is_sent(
    fallback: Any, given: str
) -> None:
    @in_memory
    async def run(buses: MemoryBuses) -> None:
        bus = await shop(buses)
        with pytest.raises(ContractError, match=rf"^market\.price\.v1: .*{given}"):
            await bus.request(GetPrice(), fallback=fallback)
        assert number_of(bus, "messages.sent") == 0

    run()


@in_memory
async def test_a_reply_is_not_a_fallback_of_a_request_without_content(buses: MemoryBuses) -> None:
    bus: Any = await shop(buses)
    with pytest.raises(ContractError, match=r"market\.close\.v1: .*lambda error: None"):
        await bus.request(Close(), fallback=UNKNOWN)


@pytest.mark.parametrize(
    "fallback",
    [
        lambda error: Word(word="x"),
        lambda error: _later(error),  # noqa: PLW0108 - not an asynchronous function itself
        lambda error: 7,
    ],
    ids=["message", "coroutine", "number"],
)
def test_a_function_that_does_not_return_a_reply_is_a_contract_error(fallback: Any) -> None:
    @in_memory
    async def run(buses: MemoryBuses) -> None:
        bus = await shop(buses)
        with pytest.raises(ContractError) as caught:
            await bus.request(GetPrice(), fallback=fallback)
        assert isinstance(caught.value.__context__, NotServed)

    run()


def test_a_fallback_is_counted_and_logged_and_its_request_counts_as_failed(
    caplog: pytest.LogCaptureFixture,
) -> None:
    @in_memory
    async def run(buses: MemoryBuses) -> None:
        bus = await shop(buses)
        with caplog.at_level(logging.DEBUG, "bus.client"):
            await bus.request(GetPrice(), fallback=UNKNOWN)
        (series,) = [each for each in bus.report.stats().series if each.name == "fallbacks"]
        assert series.labels == {"operation": "market.price", "version": "1"}
        assert series.value == 1
        (sent,) = [each for each in bus.report.stats().series if each.name == "messages.sent"]
        assert sent.labels["outcome"] == "unavailable"
        (record,) = [each for each in caplog.records if each.name == "bus.client"]
        assert record.levelno == logging.DEBUG
        assert record.getMessage() == "market.price.v1: the caller uses its fallback (unavailable)"

    run()


@in_memory
async def test_a_handler_can_have_a_fallback(buses: MemoryBuses) -> None:
    router = Router("market")

    @router.request(PassOn)
    async def pass_on(_: PassOn, context: Context) -> Price:
        return await context.bus.request(GetPrice(), fallback=Price(price=7))

    await buses.serve(await buses.bus("market"), router)
    assert await (await shop(buses)).request(PassOn(), timeout=5) == Price(price=7)


def test_a_function_of_a_sync_bus_runs_in_the_thread_of_its_caller() -> None:
    threads: list[threading.Thread] = []

    def fallback(error: BusError) -> Price:
        threads.append(threading.current_thread())
        return UNKNOWN

    bus = SyncBus("shop")
    with SyncMemoryBuses() as buses:
        buses.connect(bus)
        assert bus.request(GetPrice(), fallback=fallback) is UNKNOWN
        assert bus.request(GetPrice(), fallback=UNKNOWN) is UNKNOWN
        with pytest.raises(NotServed):
            bus.request(GetPrice(), fallback=lambda error: None)
        wrong: Any = Word(word="x")
        with pytest.raises(ContractError):
            bus.request(GetPrice(), fallback=wrong)
    assert threads == [threading.current_thread()]


def test_a_sync_bus_that_cannot_connect_returns_the_fallback() -> None:
    settings = Settings(
        auth="off", url=SecretStr("amqp://guest:guest@127.0.0.1:1/"), connect_timeout=0.2
    )
    bus = SyncBus("shop", settings=settings)
    try:
        assert bus.request(GetPrice(), timeout=0.5, fallback=UNKNOWN) is UNKNOWN
    finally:
        bus.close()
    with pytest.raises(Unavailable, match="was closed"):
        bus.request(GetPrice(), fallback=UNKNOWN)
