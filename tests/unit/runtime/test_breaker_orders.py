"""Orders for circuit breakers, on buses in memory."""

import asyncio
import re
from typing import Any

import pytest

from bus import Bus, Dependency, Job, Message, Request, Router, Unavailable, contract
from bus.errors import executed_of
from bus.messaging.control import GetBreakers, Target
from bus.messaging.orders import IsolateBreaker, OrderResult, ResetBreaker
from bus.messaging.policy_info import InstanceBreakers
from bus.testing import MemoryBuses
from tests.unit.runtime.in_memory import in_memory


class Ferry(Message):
    name: str


@contract("harbour.ferry", version=1)
class FindFerry(Request[Ferry]):
    pier: int = 1


@contract("tickets.print", version=1)
class PrintTicket(Job[None]):
    number: int


NAME = "harbour.ferry.v1"


async def harbour_and_ticket_office(buses: MemoryBuses) -> tuple[Bus, Bus, list[int]]:
    router, calls = Router("harbour"), []

    @router.request(FindFerry)
    async def find(request: FindFerry) -> Ferry:
        calls.append(request.pier)
        return Ferry(name="Aurora")

    await buses.serve(await buses.bus("harbour"), router)
    return await buses.bus("tickets"), await buses.bus("console"), calls


async def order(
    bus: Bus, order_class: type[Any], seconds: float = 60, **fields: Any
) -> OrderResult:
    until = int((bus._clock() + seconds) * 1000)
    named = {"breaker": NAME, "reason": "the pier burns", "operator": "ida", **fields}
    asked = order_class(until=until, **named)
    (answer,) = await bus.discovery.ask(asked, Target("tickets"), window=1, expected=1)
    record: OrderResult = answer.record
    return record


async def breakers(bus: Bus) -> InstanceBreakers:
    (answer,) = await bus.discovery.ask(GetBreakers(), Target("tickets"), expected=1)
    return answer.record


@in_memory
async def test_calls_of_an_isolated_breaker_are_not_sent(buses: MemoryBuses) -> None:
    tickets, console, calls = await harbour_and_ticket_office(buses)
    await tickets.request(FindFerry(), timeout=2)
    result = await order(console, IsolateBreaker)
    assert (result.outcome, result.changed) == ("applied", 1)
    with pytest.raises(Unavailable) as caught:
        await tickets.request(FindFerry(), timeout=2)
    assert (caught.value.origin, executed_of(caught.value)) == ("local", "no")
    assert len(calls) == 1


@in_memory
async def test_an_operation_can_be_isolated_before_its_first_call(buses: MemoryBuses) -> None:
    tickets, console, calls = await harbour_and_ticket_office(buses)
    assert (await order(console, IsolateBreaker)).outcome == "applied"
    with pytest.raises(Unavailable):
        await tickets.request(FindFerry(), timeout=2)
    assert calls == []


@in_memory
async def test_an_isolation_ends_by_itself(buses: MemoryBuses) -> None:
    tickets, console, _ = await harbour_and_ticket_office(buses)
    await order(console, IsolateBreaker, seconds=60)
    await asyncio.sleep(59)
    with pytest.raises(Unavailable):
        await tickets.request(FindFerry(), timeout=2)
    await asyncio.sleep(2)
    assert (await tickets.request(FindFerry(), timeout=2)).name == "Aurora"


@in_memory
async def test_a_reset_ends_an_isolation(buses: MemoryBuses) -> None:
    tickets, console, _ = await harbour_and_ticket_office(buses)
    await order(console, IsolateBreaker)
    assert (await order(console, ResetBreaker, reason="the fire is out")).changed == 1
    assert (await tickets.request(FindFerry(), timeout=2)).name == "Aurora"


def test_the_log_line_of_an_order_has_an_end_only_if_the_order_lasts(
    caplog: pytest.LogCaptureFixture,
) -> None:
    @in_memory
    async def run(buses: MemoryBuses) -> None:
        _, console, _ = await harbour_and_ticket_office(buses)
        await order(console, IsolateBreaker)
        await order(console, ResetBreaker)

    run()
    lines = [each for each in caplog.records if each.name == "bus.orders"]
    isolated, reset = lines
    assert re.search(r"until \d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC", isolated.getMessage())
    assert "until" not in reset.getMessage()
    assert [hasattr(each, "until") for each in lines] == [True, False]


@in_memory
async def test_the_list_shows_who_isolated_a_breaker_and_why(buses: MemoryBuses) -> None:
    _, console, _ = await harbour_and_ticket_office(buses)
    await order(console, IsolateBreaker)
    (info,) = (await breakers(console)).breakers
    assert (info.name, info.kind, info.state) == (NAME, "call", "isolated")
    assert (info.ordered_by, info.reason) == ("ida", "the pier burns")
    assert info.until is not None
    assert 59_000 < info.until - info.since <= 60_000


@in_memory
async def test_an_isolated_dependency_holds_jobs_and_a_reset_releases_them(
    buses: MemoryBuses,
) -> None:
    router, handled = Router("tickets"), []

    @router.job(PrintTicket, dependency=Dependency(name="printer", failures=(OSError,)))
    async def print_ticket(job: PrintTicket) -> None:
        handled.append(job.number)

    tickets, console = await buses.bus("tickets"), await buses.bus("console")
    await buses.serve(tickets, router)
    assert (await order(console, IsolateBreaker, breaker="printer")).changed == 1
    handle = await console.submit(PrintTicket(number=7))
    await asyncio.sleep(30)
    assert handled == []
    assert (await order(console, ResetBreaker, breaker="printer")).changed == 1
    await handle.result(timeout=10)
    assert handled == [7]


@pytest.mark.parametrize(
    "fields",
    [
        {"breaker": "harbour.fery.v1"},
        {"breaker": "harbour.ferry"},
        {"kind": "dependency"},
        {"breaker": "harbour.sailed.v1"},
    ],
    ids=str,
)
async def test_an_order_for_an_unknown_breaker_is_answered_with_not_found(
    fields: dict[str, Any],
) -> None:
    async with MemoryBuses() as buses:
        _, console, _ = await harbour_and_ticket_office(buses)
        for kind in (IsolateBreaker, ResetBreaker):
            result = await order(console, kind, **fields)
            assert (result.outcome, result.why, result.changed) == ("ignored", "not-found", 0)
        assert (await breakers(console)).breakers == ()
