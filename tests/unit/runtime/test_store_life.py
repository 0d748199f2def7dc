"""The life of the durable store of a bus."""

import asyncio
from typing import Any

import pytest
from typing_extensions import override

from bus.contracts.contract import Event, contract
from bus.errors import ConfigurationError, Unavailable
from bus.runtime.bus import Bus
from bus.runtime.router import Router
from bus.settings import Settings
from bus.storage.memory.store import MemoryStore
from bus.transports.memory import MemoryBroker, MemoryTransport

OPEN = Settings(auth="off", discovery="off")


class RecordedStore(MemoryStore):
    """A store that records the calls of its bus."""

    def __init__(self, calls: list[str], error: Exception | None = None) -> None:
        super().__init__()
        self.calls, self.error = calls, error

    @override
    async def open(self) -> None:
        self.calls.append("store opens")
        if self.error:
            raise self.error

    @override
    async def close(self) -> None:
        self.calls.append("store closes")


class RecordedTransport(MemoryTransport):
    """A transport that records its life."""

    calls: list[str]

    @override
    async def start(self, *arguments: Any, **options: Any) -> None:
        self.calls.append("transport starts")
        await super().start(*arguments, **options)

    @override
    async def close(self) -> None:
        self.calls.append("transport closes")
        await super().close()


def bus_with(store: RecordedStore) -> Bus:
    transport = RecordedTransport(MemoryBroker())
    transport.calls = store.calls
    return Bus("sharing", settings=OPEN, transport=transport, store=store)


async def test_a_bus_opens_its_store_when_it_first_serves_and_closes_it_last() -> None:
    calls: list[str] = []
    bus = bus_with(RecordedStore(calls))
    for _ in range(2):  # A bus can be entered again.
        async with bus:
            assert calls == ["transport starts"]
            for _ in range(2):
                await bus.serve(router, until=ended())
            assert calls == ["transport starts", "store opens"]
        assert calls[-2:] == ["transport closes", "store closes"]
        calls.clear()


async def test_a_bus_that_only_sends_does_not_open_its_store() -> None:
    calls: list[str] = []
    async with bus_with(RecordedStore(calls, Unavailable("the database does not answer"))) as bus:
        await bus.publish(Lent())
    assert "store opens" not in calls


async def test_a_store_that_does_not_open_stops_the_start_before_a_consumer_exists() -> None:
    calls: list[str] = []
    async with bus_with(RecordedStore(calls, Unavailable("the database does not answer"))) as bus:
        with pytest.raises(Unavailable, match="the database does not answer"):
            await bus.serve(router, until=ended())
        assert calls == ["transport starts", "store opens"]
    assert calls[-1] == "store closes"


def test_a_store_that_is_not_a_store_is_refused() -> None:
    wrong: Any = "sqlite:///jobs.db"
    with pytest.raises(
        ConfigurationError, match=r"^Bus\('shelf'\): store must be an object with the methods open"
    ):
        Bus("shelf", settings=OPEN, store=wrong)


@contract("sharing.lent", version=1)
class Lent(Event):
    """A contract for a router that serves something."""


router = Router("sharing")


@router.event(Lent)
async def lent(event: Lent) -> None:
    del event


class SharedStore(MemoryStore):
    """A store that answers with a chosen id."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self._id = name


def serving_bus(broker: MemoryBroker, store: MemoryStore | None) -> Bus:
    settings = Settings(auth="off")
    return Bus("sharing", settings=settings, transport=MemoryTransport(broker), store=store)


async def test_a_process_whose_store_differs_from_that_of_another_instance_does_not_serve() -> None:
    broker = MemoryBroker()
    first, second = SharedStore("first-id"), SharedStore("second-id")
    async with serving_bus(broker, first) as one, one.serving(router):
        async with serving_bus(broker, second) as other:
            with pytest.raises(
                ConfigurationError,
                match=r"another store \(first-id\) than this process \(second-id",
            ) as caught:
                await other.serve(router, until=ended())
        assert str(caught.value).endswith("compare with `bus store check`.")


@pytest.mark.parametrize("store", [None, SharedStore("first-id")])
async def test_an_instance_with_the_same_store_or_without_one_stops_no_start(
    store: MemoryStore | None,
) -> None:
    broker = MemoryBroker()
    async with (
        serving_bus(broker, store) as one,
        one.serving(router),
        serving_bus(broker, SharedStore("first-id")) as other,
    ):
        await other.serve(router, until=ended())


def ended() -> asyncio.Event:
    event = asyncio.Event()
    event.set()
    return event
