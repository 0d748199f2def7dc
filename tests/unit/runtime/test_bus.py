import asyncio
import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from math import inf, nan
from typing import Any

import pytest

from bus.errors import ConfigurationError, ConnectionLost, ContractError, Unavailable
from bus.messaging.handler import Handler
from bus.messaging.topology.model import Queue
from bus.runtime.bus import Bus
from bus.runtime.handler_timeouts import check_handler_timeouts
from bus.runtime.router import Router
from bus.settings import Settings, load_settings
from tests.unit.fakes import (
    FakeConsumerHandle,
    FakeDelivery,
    FakeTransport,
    envelope,
    settle_down,
    virtual,
)
from tests.unit.ledger import CloseBooks, Total

SETTINGS = load_settings(stop_grace=30, start_timeout=5)


def ledger(transport: FakeTransport) -> Bus:
    return Bus("ledger", settings=SETTINGS, transport=transport)


def delivery() -> FakeDelivery:
    return FakeDelivery(envelope("ledger.close.v1", role="job", queue="ledger.jobs.close.v1"))


def working(seconds: float, notes: list[str]) -> Router:
    """Return a router with a job that takes this number of seconds."""

    @asynccontextmanager
    async def lifespan() -> AsyncIterator[str]:
        notes.append("opened")
        yield "state"
        notes.append("closed")

    router = Router("ledger", lifespan=lifespan)

    @router.job(CloseBooks, timeout=1000)
    async def close(job: CloseBooks) -> Total:
        notes.append("begun")
        await asyncio.sleep(seconds)
        notes.append("done")
        return Total(total=1)

    return router


@pytest.mark.parametrize("name", ["", "Ledger", "a.b", "bus", "a" * 61])
def test_a_service_has_a_name_that_fits(name: str) -> None:
    with pytest.raises(ContractError, match="is not a valid service name"):
        Bus(name, settings=SETTINGS, transport=FakeTransport())


def layer(inner: Handler) -> Handler:
    return inner


WRONG_ARGUMENTS: list[tuple[str, Any]] = [
    ("settings", {"url": "amqp://localhost"}),
    ("settings", Settings),
    ("transport", "amqp://localhost"),
    ("transport", FakeTransport),
    ("client", layer),
    ("client", "tracing"),
    ("server", [layer, None]),
    ("server", 3),
    ("inbox", {}),
    ("clock", 3),
]


@pytest.mark.parametrize(("argument", "wrong"), WRONG_ARGUMENTS)
def test_an_argument_of_a_bus_that_has_a_wrong_type_is_refused_by_name(
    argument: str, wrong: Any
) -> None:
    arguments = {"settings": SETTINGS, "transport": FakeTransport(), argument: wrong}
    with pytest.raises(ConfigurationError, match=rf"^Bus\('ledger'\): {argument} must be "):
        Bus("ledger", **arguments)


@pytest.mark.parametrize("service", [3, None, b"ledger"], ids=repr)
def test_a_service_has_a_name_that_is_text(service: Any) -> None:
    with pytest.raises(ContractError, match="not a valid service name"):
        Bus(service, settings=SETTINGS, transport=FakeTransport())


WRONG_NUMBERS: list[tuple[str, Any, str]] = [
    ("dead_letters", {"limit": 0}, "limit"),
    ("dead_letters", {"limit": 1.5}, "limit"),
    ("replay", {"extend": inf}, "extend"),
    ("replay", {"extend": -1}, "extend"),
    ("replay", {"rate": nan}, "rate"),
    ("replay", {"rate": inf}, "rate"),
    ("replay", {"rate": "1"}, "rate"),
]


@pytest.mark.parametrize(("verb", "arguments", "name"), WRONG_NUMBERS)
def test_the_numbers_of_a_replay_are_checked_before_it_begins(
    verb: str, arguments: Any, name: str
) -> None:
    @virtual
    async def run() -> None:
        async with ledger(FakeTransport()) as bus:
            with pytest.raises(ConfigurationError, match=f"{name} must be "):
                await getattr(bus, verb)("ledger.jobs.close.v1", **arguments)

    run()


@virtual
async def test_what_is_served_is_a_router_and_what_ends_it_an_event() -> None:
    wrong: Any = "shop:router"
    async with ledger(FakeTransport()) as bus:
        routers: list[Any] = [wrong, Router, None]
        for router in routers:
            with pytest.raises(ConfigurationError, match="router must be a Router, not "):
                await bus.serve(router)
        with pytest.raises(ConfigurationError, match="until must be "):
            await bus.serve(Router("ledger"), until=wrong)


@virtual
async def test_the_transport_is_closed_where_the_start_fails() -> None:
    transport = FakeTransport()
    transport.consumption.ready = False
    with pytest.raises(Unavailable, match="not ready after 5 s: replies: no answer"):
        async with ledger(transport):
            pass
    assert transport.closed == 1


@virtual
async def test_who_waits_for_a_job_hears_that_the_bus_was_closed() -> None:
    async with ledger(FakeTransport()) as bus:
        job = await bus.submit(CloseBooks())
        waiting = [asyncio.ensure_future(each) for each in (job.result(), anext(job.updates()))]
        await settle_down()
    for each in waiting:
        with pytest.raises(
            ConnectionLost, match=f"{job.id}.*the bus was closed.*The job continues"
        ) as lost:
            await each
        assert lost.value.maybe_executed
    with pytest.raises(ConnectionLost):
        await job.result(timeout=5)
    assert asyncio.get_running_loop().time() == 0


@virtual
async def test_a_service_serves_its_own_router() -> None:
    async with ledger(FakeTransport()) as bus:
        with pytest.raises(
            ConfigurationError, match="'ledger', but the router belongs to 'office'"
        ):
            await bus.serve(Router("office"))


@virtual
async def test_a_handler_that_may_outlast_the_brokers_patience_is_refused_by_name() -> None:
    transport, notes = FakeTransport(), list[str]()
    settings = load_settings(consumer_timeout=999)
    async with Bus("ledger", settings=settings, transport=transport) as bus:
        with pytest.raises(
            ConfigurationError,
            match=r"ledger\.close\.v1 may take 1000 s.*after 999 s.*BUS_CONSUMER_TIMEOUT",
        ):
            await bus.serve(working(1, notes))
    assert notes == []


@virtual
async def test_a_handler_of_any_length_is_served_where_the_broker_heeds_how_long_it_may_take() -> (
    None
):
    transport, notes = FakeTransport(heeds=True), list[str]()
    settings = load_settings(consumer_timeout=999)
    async with (
        Bus("ledger", settings=settings, transport=transport) as bus,
        bus.serving(working(1, notes)),
    ):
        # The longest handler it may wait for, its own timeout, and the settlement.
        assert transport.consumer_timeouts["ledger.jobs.close.v1"] == 1000 + 1000 + 90


@virtual
async def test_a_policy_that_gives_the_queue_more_time_counts_before_the_setting() -> None:
    async def policies(queue: Queue) -> Mapping[str, object]:
        return {"consumer-timeout": patience} if queue.name == "ledger.jobs.close.v1" else {}

    for patience in (1_000_000, 999_000):
        settings, heeded = (
            load_settings(consumer_timeout=500),
            FakeTransport().supports_consumer_timeout,
        )
        if patience == 1_000_000:
            await check_handler_timeouts(
                working(1, []), settings, supported=heeded, policies=policies
            )
        else:
            with pytest.raises(
                ConfigurationError, match=r"ledger\.close\.v1 may take 1000 s.*after 999 s"
            ):
                await check_handler_timeouts(
                    working(1, []), settings, supported=heeded, policies=policies
                )


@virtual
async def test_a_clean_stop_finishes_what_runs_before_the_lifespan_ends() -> None:
    transport, notes, mine = FakeTransport(), list[str](), delivery()
    async with ledger(transport) as bus, bus.serving(working(20, notes)):
        transport.deliver(mine)
        await settle_down()
    assert (notes, mine.acks) == (["opened", "begun", "done", "closed"], 1)
    assert asyncio.get_running_loop().time() == pytest.approx(20, abs=0.1)


@virtual
async def test_a_stop_closes_its_consumers_once_nothing_runs_any_more() -> None:
    transport, notes = FakeTransport(), list[str]()
    closed: list[int] = []
    async with ledger(transport) as bus:
        for number in range(2):  # a bus that serves repeatedly must not accumulate channels
            transport.consumption.ready = True
            async with bus.serving(working(5, notes)):
                mine = delivery()
                mine.envelope = mine.envelope.replace(id=f"m-{number}")
                transport.deliver(mine)
                await settle_down()
            assert notes[-2:] == ["done", "closed"]
            closed.append(transport.consumption.closed)
    assert closed == [1, 2]


@virtual
async def test_what_is_not_done_within_the_grace_goes_back() -> None:
    transport, notes, mine = FakeTransport(), list[str](), delivery()
    async with ledger(transport) as bus, bus.serving(working(900, notes)):
        transport.deliver(mine)
        await settle_down()
    assert (notes, mine.acks, mine.requeues) == (["opened", "begun", "closed"], 0, 1)
    assert asyncio.get_running_loop().time() == pytest.approx(30, abs=0.1)


@virtual
async def test_a_second_cancellation_stops_now() -> None:
    transport, notes, mine = FakeTransport(), list[str](), delivery()
    bus = ledger(transport)

    async def serve() -> None:
        async with bus:
            await bus.serve(working(900, notes))

    serving = asyncio.create_task(serve())
    await settle_down()
    transport.deliver(mine)
    await settle_down()
    for _ in range(2):
        serving.cancel()
        await settle_down()
    assert serving.cancelled()
    assert (mine.requeues, transport.closed, asyncio.get_running_loop().time()) == (1, 1, 0)


@virtual
async def test_a_stop_is_cut_short_even_while_the_broker_is_told_of_it() -> None:
    transport, notes, mine, told = FakeTransport(), list[str](), delivery(), asyncio.Event()
    stop = asyncio.Event()
    transport.consumption.hold = told  # the broker does not answer the cancel
    bus = ledger(transport)

    async def serve() -> None:
        async with bus:
            await bus.serve(working(900, notes), until=stop)

    serving = asyncio.create_task(serve())
    await settle_down()
    transport.deliver(mine)
    await settle_down()
    stop.set()
    await settle_down()
    serving.cancel()
    await settle_down()
    assert serving.cancelled()
    assert (notes, mine.requeues, transport.closed) == (["opened", "begun"], 1, 1)


@virtual
async def test_it_is_ready_only_while_it_serves_not_while_it_begins_or_stops() -> None:
    transport, notes, seen = FakeTransport(), list[str](), dict[str, bool]()
    bus = ledger(transport)

    @asynccontextmanager
    async def lifespan() -> AsyncIterator[None]:
        seen["loading"] = bus.ready
        yield
        seen["unloading"] = bus.ready

    router = working(20, notes)
    router.lifespan = lifespan
    async with bus:
        transport.consumption = FakeConsumerHandle(name="work")  # not that of the replies
        async with bus.serving(router):
            seen["serving"] = bus.ready
            transport.deliver(delivery())
            await settle_down()
            asyncio.get_running_loop().call_later(10, lambda: seen.update(finishing=bus.ready))
        seen["afterwards"] = bus.ready
    assert seen == {
        "loading": False,
        "serving": True,
        "finishing": False,
        "unloading": False,
        "afterwards": True,
    }


@virtual
async def test_it_is_not_ready_while_a_connection_finds_only_another_cluster() -> None:
    transport = FakeTransport()
    seen: list[bool] = []
    async with ledger(transport) as bus:
        for is_refused in (False, True, False):
            transport.is_refused = is_refused
            seen.append(bus.ready)
    assert seen == [True, False, True]


@pytest.mark.parametrize("asked", [True, False])
def test_what_counts_for_the_queues_is_read_back_where_the_transport_has_a_management_api(
    caplog: pytest.LogCaptureFixture, *, asked: bool
) -> None:
    @virtual
    async def run() -> None:
        transport = FakeTransport(has_management_api=asked)
        bus = ledger(transport)
        with caplog.at_level(logging.INFO):
            async with bus, bus.serving(working(0, [])):
                pass
        assert ("queues were not checked" in caplog.text) is asked

    run()
