"""The reports of circuit breakers, on buses in memory."""

import asyncio
import logging
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from bus import (
    Bus,
    BusError,
    Context,
    Message,
    Request,
    Router,
    ServiceConfig,
    SyncBus,
    Unavailable,
    contract,
)
from bus.messaging.service_info import Series
from bus.testing import MemoryBuses, SyncMemoryBuses
from tests.unit.runtime.in_memory import in_memory


class Book(Message):
    shelf: str


@contract("clerk.ask", version=1)
class AskClerk(Request[Book]):
    title: str = "Emma"


@contract("annex.find", version=1)
class FindInAnnex(Request[Book]):
    title: str = "Emma"


class Annex:
    """A service that can be down, and a service that calls it from a handler."""

    def __init__(self) -> None:
        self.is_down = False
        self.router, self.clerk = Router("annex"), Router("clerk")
        self.router.request(FindInAnnex)(self.find)
        self.clerk.request(AskClerk)(self.ask)

    async def find(self, request: FindInAnnex) -> Book:
        if self.is_down:
            raise Unavailable("the catalogue is closed")
        return Book(shelf=request.title)

    async def ask(self, request: AskClerk, context: Context) -> Book:
        return await context.bus.request(FindInAnnex(title=request.title))


async def fail(bus: Bus, times: int = 5) -> None:
    for _ in range(times):
        with pytest.raises(BusError):
            await bus.request(FindInAnnex())


@asynccontextmanager
async def opened(buses: MemoryBuses) -> AsyncIterator[tuple[Annex, Bus]]:
    """Yield a service that is down, and a bus with an open breaker for it."""
    annex = Annex()
    await buses.serve(await buses.bus("annex"), annex.router)
    caller = await buses.bus("caller", services=[ServiceConfig("annex", retries=0)])
    await caller.request(FindInAnnex())
    annex.is_down = True
    await fail(caller)
    yield annex, caller


def series_of(bus: Bus, name: str) -> dict[tuple[str, ...], float]:
    found: list[Series] = [each for each in bus.report.stats().series if each.name == name]
    return {tuple(each.labels.values()): each.value for each in found}


@in_memory
async def test_metrics_show_the_state_the_changes_and_the_rejected_requests(
    buses: MemoryBuses,
) -> None:
    async with opened(buses) as (annex, caller):
        await fail(caller, 3)
        key = "annex.find.v1", "call"
        assert series_of(caller, "breaker.state") == {key: 2}
        assert series_of(caller, "breaker.changes") == {(*key, "open"): 1}
        assert series_of(caller, "calls.rejected") == {("annex.find", "1", "breaker"): 3}
        await asyncio.sleep(40)
        assert series_of(caller, "breaker.state") == {key: 1}
        annex.is_down = False
        await caller.request(FindInAnnex())
        await caller.request(FindInAnnex())
        assert series_of(caller, "breaker.state") == {key: 0}
        assert series_of(caller, "breaker.changes") == {
            (*key, "open"): 1,
            (*key, "half-open"): 1,
            (*key, "closed"): 1,
        }


@in_memory
async def test_stats_have_the_breakers_that_are_not_closed_and_the_answer_to_breakers_has_all(
    buses: MemoryBuses,
) -> None:
    async with opened(buses) as (annex, caller):
        (info,) = caller.report.stats().breakers
        assert (info.name, info.state, info.failures, info.calls) == (
            *("annex.find.v1", "open"),
            *(5, 6),
        )
        assert info.cause == "5 consecutive failures (unavailable)"
        annex.is_down = False
        await asyncio.sleep(40)
        await caller.request(FindInAnnex())
        assert [each.state for each in caller.report.stats().breakers] == ["half-open"]
        await caller.request(FindInAnnex())
        assert caller.report.stats().breakers == ()
        assert [each.state for each in caller.report.breakers().breakers] == ["closed"]


def test_one_line_tells_that_a_breaker_opens_and_one_that_it_closes(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG, logger="bus.breakers")

    @in_memory
    async def run(buses: MemoryBuses) -> None:
        async with opened(buses) as (annex, caller):
            await fail(caller, 50)
            annex.is_down = False
            await asyncio.sleep(40)
            for _ in range(10):
                await caller.request(FindInAnnex())

    run()
    lines = [
        (each.levelname, each.getMessage())
        for each in caplog.records
        if each.name == "bus.breakers"
    ]
    assert [level for level, _ in lines] == ["WARNING", "INFO"]
    assert lines[0][1].startswith(
        "annex.find.v1: the circuit breaker is open, after 5 consecutive failures (unavailable). "
        "Requests fail at once for "
    )
    assert lines[1][1] == (
        "annex.find.v1: the circuit breaker is closed again, after 2 successful probes in a row"
    )
    assert "catalogue" not in caplog.text.split("bus.breakers", 1)[1]


@in_memory
async def test_a_handler_shares_the_breaker_of_its_bus(buses: MemoryBuses) -> None:
    async with opened(buses) as (annex, _):
        clerk = await buses.bus("clerk", services=[ServiceConfig("annex", retries=0)])
        await buses.serve(clerk, annex.clerk)
        reader = await buses.bus("reader", services=[ServiceConfig("clerk", retries=0)])
        await fail(clerk, 4)
        with pytest.raises(Unavailable, match="the catalogue is closed"):
            await reader.request(AskClerk())
        with pytest.raises(Unavailable, match="the circuit breaker is open"):
            await clerk.request(FindInAnnex())
        with pytest.raises(Unavailable, match="the circuit breaker is open"):
            await reader.request(AskClerk())


def test_threads_of_a_synchronous_bus_share_the_breaker() -> None:
    annex = Annex()
    annex.is_down = True
    with SyncMemoryBuses() as buses:
        buses.serve(annex.router)
        caller = SyncBus("caller")
        buses.connect(caller)
        errors = list[str]()

        def call() -> None:
            with pytest.raises(Unavailable) as caught:
                caller.request(FindInAnnex(), timeout=5)
            errors.append(caught.value.origin)

        for _ in range(6):
            thread = threading.Thread(target=call)
            thread.start()
            thread.join()
    assert errors == ["service"] * 5 + ["local"]
