"""Tests of routers that serve the handlers of one service together."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import pytest

from bus.errors import ConfigurationError, ContractError
from bus.messaging.context import Context
from bus.runtime.router import Router
from bus.testing import MemoryBuses
from tests.unit.ledger import Add, BooksClosed, Clear, CloseBooks, GetTotal, Total

ADD = "ledger.requests.add.v1"
CLEAR = "ledger.requests.clear.v1"


async def add(request: Add) -> Total:
    return Total(total=request.amount)


async def other_add(request: Add) -> Total:
    return Total(total=0)


async def clear(request: Clear) -> None: ...


async def on_closed(event: BooksClosed) -> None: ...


def lifespan_of(name: str, notes: list[str]) -> Callable[[], AbstractAsyncContextManager[str]]:
    @asynccontextmanager
    async def lifespan() -> AsyncIterator[str]:
        notes.append(f"{name} opened")
        yield name
        notes.append(f"{name} closed")

    return lifespan


def test_a_router_includes_the_handlers_of_another_router_of_its_service() -> None:
    main, part = Router("ledger"), Router("ledger")
    main.request(Add)(add)
    part.request(Clear)(clear)
    main.include(part)
    assert ([*main.endpoints], [*part.endpoints]) == ([ADD, CLEAR], [CLEAR])
    assert set(main.topology()) == {ADD, CLEAR}
    assert [contract.type for contract in main.contracts] == ["ledger.add.v1", "ledger.clear.v1"]


def test_a_handler_that_is_registered_after_the_include_is_included_too() -> None:
    root, main, part = Router("ledger"), Router("ledger"), Router("ledger")
    main.include(part)
    root.include(main)
    part.request(Add)(add)
    assert [*root.endpoints] == [*main.endpoints] == [*part.endpoints] == [ADD]


async def test_handlers_of_several_modules_answer_and_have_the_state_of_their_own_router() -> None:
    notes: list[str] = []
    main = Router("ledger", lifespan=lifespan_of("main", notes))
    part = Router("ledger", lifespan=lifespan_of("part", notes))
    bare = Router("ledger")
    deep = Router("ledger")

    @main.request(Add)
    async def of_main(request: Add, context: Context) -> Total:
        notes.append(f"add in {context.state}")
        return Total(total=1)

    @part.request(Clear)
    async def of_part(request: Clear, context: Context) -> None:
        notes.append(f"clear in {context.state}")

    @bare.request(GetTotal)
    async def of_bare(request: GetTotal, context: Context) -> Total:
        notes.append(f"total in {context.state}")
        return Total(total=3)

    @deep.job(CloseBooks)
    async def of_deep(job: CloseBooks, context: Context) -> Total:
        notes.append(f"close in {context.state}")
        return Total(total=4)

    main.include(part)
    main.include(bare)
    part.include(deep)
    async with MemoryBuses() as buses:
        ledger, office = await buses.bus("ledger"), await buses.bus("office")
        async with ledger.serving(main):
            await office.request(Add(), timeout=5)
            await office.request(Clear(), timeout=5)
            await office.request(GetTotal(), timeout=5)
            await (await office.submit(CloseBooks())).result(timeout=5)
    assert notes == [
        "main opened",
        "part opened",
        "add in main",
        "clear in part",
        "total in main",
        "close in part",
        "part closed",
        "main closed",
    ]


async def test_an_included_router_can_also_be_served_alone() -> None:
    main, part = Router("ledger", lifespan=lifespan_of("main", [])), Router("ledger")
    states: list[object] = []

    @part.request(Clear)
    async def of_part(request: Clear, context: Context) -> None:
        states.append(context.state)

    main.include(part)
    async with MemoryBuses() as buses:
        ledger, office = await buses.bus("ledger"), await buses.bus("office")
        for router in (part, main):
            async with ledger.serving(router):
                await office.request(Clear(), timeout=5)
    assert states == [None, "main"]


def test_a_router_of_another_service_is_refused() -> None:
    with pytest.raises(
        ContractError,
        match=r"the router of 'ledger' cannot include a router of 'office', .*"
        r"Use the same service name in both routers, or serve both services with `bus run",
    ):
        Router("ledger").include(Router("office"))


def test_a_value_that_is_not_a_router_is_refused() -> None:
    with pytest.raises(ContractError, match="include requires a Router, not a value of type dict"):
        Router("ledger").include({})  # type: ignore[arg-type]


def test_two_handlers_of_one_queue_are_refused_and_both_places_are_named() -> None:
    main, part, late = Router("ledger"), Router("ledger"), Router("ledger")
    main.request(Add)(add)
    main.event(BooksClosed)(on_closed)
    part.request(Clear)(clear)
    part.request(Add)(other_add)
    problem = (
        r"ledger\.add\.v1 has two handlers in ledger: "
        r".*test_inclusion\.add and .*test_inclusion\.other_add\. Remove one of them\."
    )
    with pytest.raises(ContractError, match=problem):
        main.include(part)
    assert [*main.endpoints] == [ADD, "ledger.events.ledger.closed.v1"]  # nothing was added

    main.include(late)
    with pytest.raises(ContractError, match=problem):
        late.request(Add)(other_add)
    assert not late.endpoints
    with pytest.raises(ContractError, match="Set a different subscription for each handler"):
        late.event(BooksClosed)(on_closed)
    late.event(BooksClosed, subscription="late")(on_closed)


def test_cycles_of_routers_are_refused() -> None:
    first, second, third = Router("ledger"), Router("ledger"), Router("ledger")
    first.include(second)
    second.include(third)
    for including, included in ((first, first), (second, first), (third, first)):
        with pytest.raises(ContractError, match="cannot include itself or a router that includes"):
            including.include(included)


def test_a_router_is_included_once() -> None:
    root, first, second, part = (Router("ledger") for _ in range(4))
    root.include(first)
    root.include(second)
    first.include(part)
    for including in (first, root, second):
        with pytest.raises(ContractError, match="a router cannot be included twice"):
            including.include(part)


async def test_a_router_that_is_served_refuses_new_handlers_and_includes() -> None:
    main, part, other = Router("ledger"), Router("ledger"), Router("ledger")
    main.request(Add)(add)
    main.include(part)
    async with MemoryBuses() as buses:
        ledger = await buses.bus("ledger")
        async with ledger.serving(main):
            for change in (
                lambda: main.include(other),
                lambda: part.include(other),
                lambda: main.request(Clear)(clear),
                lambda: part.request(Clear)(clear),
            ):
                with pytest.raises(ContractError, match="the router is served now"):
                    change()
        part.request(Clear)(clear)
        async with ledger.serving(main):
            assert [*main.endpoints] == [ADD, CLEAR]


async def test_a_router_without_handlers_is_refused() -> None:
    async with MemoryBuses() as buses:
        ledger = await buses.bus("ledger")
        for router in (Router("ledger"), _including(Router("ledger"))):
            with pytest.raises(
                ConfigurationError,
                match=r"ledger: the router has no handlers\. Import the modules that register them",
            ):
                async with ledger.serving(router):
                    pass


async def test_a_router_with_only_a_lifespan_is_served_with_a_warning(
    caplog: pytest.LogCaptureFixture,
) -> None:
    notes: list[str] = []
    part = Router("ledger", lifespan=lifespan_of("part", notes))
    async with MemoryBuses() as buses:
        ledger = await buses.bus("ledger")
        async with asyncio.timeout(10), ledger.serving(_including(part)):
            assert (notes, ledger.ready) == (["part opened"], True)
    assert "the router has no handlers" in caplog.text


def _including(part: Router) -> Router:
    router = Router("ledger")
    router.include(part)
    return router
