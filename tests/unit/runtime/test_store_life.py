"""The life of the durable store of a bus."""

from typing import Any

import pytest
from typing_extensions import override

from bus.errors import ConfigurationError, Unavailable
from bus.runtime.bus import Bus
from bus.settings import Settings
from bus.transports.memory import MemoryBroker, MemoryTransport

OPEN = Settings(auth="off", discovery="off")


class RecordedStore:
    """A store that records the calls of its bus."""

    def __init__(self, calls: list[str], error: Exception | None = None) -> None:
        self.calls, self.error = calls, error

    async def open(self) -> None:
        self.calls.append("store opens")
        if self.error:
            raise self.error

    async def close(self) -> None:
        self.calls.append("store closes")

    async def beat(self) -> None:
        raise AssertionError

    async def transaction(self) -> None:
        raise AssertionError


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
    chosen: Any = store
    return Bus("shelf", settings=OPEN, transport=transport, store=chosen)


async def test_a_bus_opens_its_store_before_the_transport_and_closes_it_last() -> None:
    calls: list[str] = []
    bus = bus_with(RecordedStore(calls))
    for _ in range(2):  # A bus can be entered again.
        async with bus:
            assert calls == ["store opens", "transport starts"]
        assert calls == ["store opens", "transport starts", "transport closes", "store closes"]
        calls.clear()


async def test_a_store_that_does_not_open_stops_the_start_before_the_broker_is_used() -> None:
    calls: list[str] = []
    bus = bus_with(RecordedStore(calls, Unavailable("the database does not answer")))
    with pytest.raises(Unavailable, match="the database does not answer"):
        await bus.__aenter__()
    assert "transport starts" not in calls
    assert calls[-1] == "store closes"


def test_a_store_that_is_not_a_store_is_refused() -> None:
    wrong: Any = "sqlite:///jobs.db"
    with pytest.raises(
        ConfigurationError, match=r"^Bus\('shelf'\): store must be an object with the methods open"
    ):
        Bus("shelf", settings=OPEN, store=wrong)
