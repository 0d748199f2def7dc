"""Tests of the lifespan of a router, and of its parameter for the bus."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

import pytest

from bus.errors import ContractError
from bus.messaging.context import Context, Sender
from bus.runtime.bus import Bus
from bus.runtime.lifespan import check_lifespan
from bus.runtime.router import Router
from bus.testing import MemoryBuses
from tests.unit.ledger import Add, BooksClosed, Total

if TYPE_CHECKING:
    from types import TracebackType

    from bus.runtime.bus import Bus as LateBus


class Publisher(Protocol):
    async def publish(self, event: BooksClosed) -> None: ...


@asynccontextmanager
async def with_bus(bus: Bus) -> AsyncIterator[object]:
    yield bus


@asynccontextmanager
async def with_sender(sender: Sender) -> AsyncIterator[object]:
    yield sender


@asynccontextmanager
async def with_protocol(publisher: Publisher) -> AsyncIterator[object]:
    yield publisher


@asynccontextmanager
async def with_optional_bus(size: int = 3, bus: Bus | None = None) -> AsyncIterator[object]:
    yield bus


@asynccontextmanager
async def by_name(*, bus: Bus) -> AsyncIterator[object]:
    yield bus


@asynccontextmanager
async def positional_only(bus: Bus, /) -> AsyncIterator[object]:
    yield bus


@asynccontextmanager
async def with_size(size: int, bus: Bus) -> AsyncIterator[object]:
    yield bus


class Resources:
    def __init__(self, bus: Bus) -> None:
        self.bus = bus

    async def __aenter__(self) -> object:
        return self.bus

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...


class Holder:
    @asynccontextmanager
    async def lifespan(self, bus: Bus) -> AsyncIterator[object]:
        yield bus


@pytest.mark.parametrize(
    "lifespan",
    [
        with_bus,
        with_sender,
        with_protocol,
        with_optional_bus,
        by_name,
        positional_only,
        partial(with_size, 3),
        Resources,
        Holder().lifespan,
    ],
)
async def test_a_lifespan_gets_the_bus_by_the_annotation_of_its_parameter(lifespan: Any) -> None:
    states: list[object] = []
    router = Router("ledger", lifespan=lifespan)

    @router.request(Add)
    async def add(request: Add, context: Context) -> Total:
        states.append(context.state)
        return Total(total=1)

    async with MemoryBuses() as buses:
        ledger, office = await buses.bus("ledger"), await buses.bus("office")
        async with ledger.serving(router):
            await office.request(Add(), timeout=5)
    assert states == [ledger]


class HttpClient:
    async def request(self, url: str) -> None: ...


def test_a_lifespan_does_not_get_the_bus_in_place_of_a_client_of_http() -> None:
    own = HttpClient()

    @asynccontextmanager
    async def with_client(client: HttpClient = own) -> AsyncIterator[object]:
        yield client

    @asynccontextmanager
    async def without_default(client: HttpClient) -> AsyncIterator[object]:
        yield client

    assert check_lifespan(with_client) is None
    with pytest.raises(ContractError, match="no value for the parameter 'client'"):
        check_lifespan(without_default)


async def test_an_included_lifespan_gets_the_bus_too() -> None:
    main, part, states = Router("ledger"), Router("ledger", lifespan=with_bus), list[object]()

    @part.request(Add)
    async def add(request: Add, context: Context) -> Total:
        states.append(context.state)
        return Total(total=1)

    main.include(part)
    async with MemoryBuses() as buses:
        ledger, office = await buses.bus("ledger"), await buses.bus("office")
        async with ledger.serving(main):
            await office.request(Add(), timeout=5)
    assert states == [ledger]


@asynccontextmanager
async def for_an_application(app: dict[str, int]) -> AsyncIterator[None]:
    yield


@asynccontextmanager
async def without_annotation(bus) -> AsyncIterator[None]:  # type: ignore[no-untyped-def]  # noqa: ANN001
    yield


@asynccontextmanager
async def with_two(bus: Bus, again: Bus) -> AsyncIterator[None]:
    yield


@asynccontextmanager
async def with_late_bus(bus: LateBus) -> AsyncIterator[None]:
    yield


async def undecorated() -> AsyncIterator[None]:
    yield


async def without_yield() -> None: ...


@contextmanager
def not_async() -> Iterator[None]:
    yield


@pytest.mark.parametrize(
    ("lifespan", "problem"),
    [
        (for_an_application, "the bus has no value for the parameter 'app' of the lifespan"),
        (without_annotation, "the bus has no value for the parameter 'bus' of the lifespan"),
        (with_two, "the bus has no value for the parameter 'again' of the lifespan"),
        (with_late_bus, "the annotation of the parameter 'bus' cannot be evaluated"),
        (undecorated, "undecorated does not return an async context manager"),
        (without_yield, "without_yield does not return an async context manager"),
        (with_bus(None), "must be a function .*, not a value of type .*Pass the function"),  # type: ignore[arg-type]
        (3, "must be a function that returns an async context manager, not a value of type int"),
    ],
)
def test_a_lifespan_that_could_not_be_entered_is_refused_when_declared(
    lifespan: Any, problem: str
) -> None:
    with pytest.raises(ContractError, match=problem):
        Router("ledger", lifespan=lifespan)


async def test_a_lifespan_of_a_plain_context_manager_is_refused_at_the_start() -> None:
    lifespan: Any = not_async
    router = Router("ledger", lifespan=lifespan)
    async with MemoryBuses() as buses:
        ledger = await buses.bus("ledger")
        with pytest.raises(ContractError, match="not an async context manager"):
            async with ledger.serving(router):
                pass


def test_a_lifespan_can_be_opened_by_a_test() -> None:
    lifespan = Router("ledger", lifespan=with_bus).lifespan
    assert isinstance(lifespan("any bus"), AbstractAsyncContextManager)
