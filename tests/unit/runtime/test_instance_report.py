"""The report of a process: its state, its contracts, its handlers and its running messages."""

import asyncio
import platform
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version

import pytest

from bus import Bus, Event, Job, Message, Request, Router, contract
from bus.contracts.digest import schema_digest
from bus.errors import BusError, NotFound
from bus.messaging.service_info import (
    CandidateInfo,
    HandlerState,
    InstanceInfo,
    InstanceStats,
)
from bus.runtime.endpoint_consumer import EndpointConsumer
from bus.runtime.poison_isolation import PoisonCandidate
from bus.runtime.router import JOB_TIMEOUT
from bus.testing import MemoryBuses
from tests.polling import until
from tests.unit.runtime.in_memory import in_memory

SECRET = "Eleonora Quist"


class Sum(Message):
    amount: int


@contract("kiosk.quote", version=2)
class Quote(Request[Sum]):
    customer: str = SECRET


@contract("kiosk.find", version=1)
class Find(Request[Sum | None]):
    customer: str = SECRET


@contract("kiosk.settle", version=1)
class Settle(Job[None]):
    customer: str = SECRET


@contract("kiosk.opened", version=1, permission="kiosk.news")
class Opened(Event):
    shop: str = "north"


class Kiosk:
    """A router with one handler of each kind. Its request handler waits until a test lets it go."""

    def __init__(self, error: BaseException | None = None) -> None:
        self.router = Router("kiosk")
        self.began, self.go = asyncio.Event(), asyncio.Event()

        @self.router.request(Quote, concurrency=4)
        async def quote(_: Quote) -> Sum:
            self.began.set()
            await self.go.wait()
            if error is not None:
                raise error
            return Sum(amount=1)

        @self.router.event(Opened, subscription="signs")
        async def light(_: Opened) -> None: ...

        @self.router.job(Settle)
        async def settle(_: Settle) -> None: ...


def handler(bus: Bus, operation: str = "kiosk.quote") -> HandlerState:
    (found,) = [each for each in bus.report.stats().handlers if each.operation == operation]
    return found


def gauges(stats: InstanceStats, operation: str) -> dict[str, float]:
    return {
        each.name: each.value
        for each in stats.series
        if each.labels.get("operation") == operation and not each.buckets
    }


@in_memory
async def test_the_state_follows_the_life_of_a_service(buses: MemoryBuses) -> None:
    bus, kiosk = await buses.bus("kiosk", service_version="1.2"), Kiosk()
    report = bus.report
    assert (report.state().state, report.state().version) == ("ready", "1.2")
    serving = bus.serving(kiosk.router)
    await serving.__aenter__()
    assert report.state().state == "ready"
    call = asyncio.create_task((await buses.bus("shop")).request(Quote(), timeout=5))
    await kiosk.began.wait()
    leaving = asyncio.create_task(serving.__aexit__(None, None, None))
    await asyncio.sleep(0.1)
    assert report.state().state == "draining"
    kiosk.go.set()
    await asyncio.wait([leaving, call])
    assert report.state().state == "ready"
    buses.broker.stop()
    await until(lambda: not bus.ready, "the lost connection")
    assert report.state().state == "not-ready"


@in_memory
async def test_a_service_that_starts_is_starting(buses: MemoryBuses) -> None:
    bus, states = await buses.bus("kiosk"), []

    @asynccontextmanager
    async def resources() -> AsyncIterator[None]:
        states.append(bus.report.state().state)
        yield

    router = Router("kiosk", lifespan=resources)
    async with bus.serving(router):
        states.append(bus.report.state().state)
    assert states == ["starting", "ready"]


def test_a_bus_has_a_report_before_it_is_opened() -> None:
    bus = Bus("shop", settings=None)
    assert bus.report.state().state == "starting"
    assert bus.report.stats().handlers == ()


@in_memory
async def test_a_bus_that_serves_nothing_has_a_report(buses: MemoryBuses) -> None:
    shop = await buses.bus("shop")
    info = shop.report.info()
    assert (info.service, info.instance, info.contracts) == ("shop", shop.instance, ())
    assert shop.report.stats().handlers == ()
    assert shop.report.find("x").messages == ()


@in_memory
async def test_a_bus_that_is_opened_again_begins_again(buses: MemoryBuses) -> None:
    bus = await buses.bus("kiosk")
    with pytest.raises(BusError):
        await bus.request(Quote(), timeout=1)
    first = bus.report.stats()
    await bus.__aexit__(None, None, None)
    assert bus.report.state().state == "draining"
    await asyncio.sleep(1)
    async with bus:
        again = bus.report.stats()
        assert again.instance != first.instance
        assert again.since >= first.since + 1000
        assert {each.name for each in again.series} == {"connections.lost", "ready"}


@in_memory
async def test_info_has_the_contracts_with_versions_permissions_and_digests(
    buses: MemoryBuses,
) -> None:
    bus = await buses.bus("kiosk")
    async with bus.serving(Kiosk().router):
        info = bus.report.info()
    assert info.bus_version == version("trunkline")
    assert info.python_version == platform.python_version()
    found = {each.type: each for each in info.contracts}
    assert found.keys() == {"kiosk.quote.v2", "kiosk.opened.v1", "kiosk.settle.v1"}
    quote, opened, settle = (
        found[name] for name in ("kiosk.quote.v2", "kiosk.opened.v1", "kiosk.settle.v1")
    )
    assert (quote.kind, quote.queue, quote.permission) == (
        "request",
        "kiosk.requests.quote.v2",
        "kiosk.quote",
    )
    assert (quote.digest, quote.reply_digest) == (schema_digest(Quote), schema_digest(Sum))
    assert (opened.subscription, opened.permission, opened.reply_digest) == (
        "signs",
        "kiosk.news",
        None,
    )
    assert settle.reply_digest is None
    assert InstanceInfo.model_validate_json(info.model_dump_json()) == info


def test_a_digest_changes_with_a_field_and_not_with_a_text() -> None:
    class One(Message):
        """A class."""

        title: str
        description: int

    original = schema_digest(One)

    def define(annotations: dict[str, type], text: str) -> str:
        return schema_digest(
            type("One", (Message,), {"__annotations__": annotations, "__doc__": text})
        )

    assert define({"title": str, "description": int}, "Another text.") == original
    assert define({"title": str, "description": str}, "A class.") != original
    assert define({"title": str}, "A class.") != original
    assert schema_digest(Sum) != schema_digest(Sum, optional=True)
    assert len(original) == 64


@in_memory
async def test_a_running_message_takes_a_slot_and_is_in_flight(buses: MemoryBuses) -> None:
    bus, kiosk, shop = await buses.bus("kiosk"), Kiosk(), await buses.bus("shop")
    await buses.serve(bus, kiosk.router)
    call = asyncio.create_task(shop.request(Quote(), timeout=5))
    await kiosk.began.wait()
    running = handler(bus)
    assert (running.slots, running.free, running.in_flight, running.version) == (4, 3, 1, 2)
    assert gauges(bus.report.stats(), "kiosk.quote") == {
        "messages.in_flight": 1,
        "handler.slots": 4,
        "handler.slots.free": 3,
        "consumers.paused": 0,
    }
    assert running.last_handled is None
    kiosk.go.set()
    await call
    await buses.settled()
    ended = handler(bus)
    assert (ended.free, ended.in_flight) == (4, 0)
    assert ended.last_handled is not None
    stats = bus.report.stats()
    assert InstanceStats.model_validate_json(stats.model_dump_json()) == stats


@in_memory
async def test_a_handler_reports_how_long_its_oldest_message_runs_and_since_when_it_is_full(
    buses: MemoryBuses,
) -> None:
    bus, kiosk, shop = await buses.bus("kiosk"), Kiosk(), await buses.bus("shop")
    await buses.serve(bus, kiosk.router)
    assert (handler(bus).oldest_seconds, handler(bus).full_seconds) == (None, None)
    calls = [asyncio.create_task(shop.request(Quote(), timeout=5)) for _ in range(4)]
    (state,) = [each.state for each in bus._server.consumers if "requests" in each.name]
    await until(lambda: state.slots.free == 0, "four messages")
    for number, message in enumerate(state.in_flight.open.values()):
        assert message.started is not None
        message.started -= 40 + number
    busy = handler(bus)
    assert busy.oldest_seconds == pytest.approx(43, abs=0.9)
    assert busy.full_seconds == pytest.approx(40, abs=0.9)
    kiosk.go.set()
    await asyncio.gather(*calls)
    await buses.settled()
    assert (handler(bus).oldest_seconds, handler(bus).full_seconds) == (None, None)


@in_memory
async def test_a_handler_with_a_free_slot_is_not_full_and_has_its_timeout(
    buses: MemoryBuses,
) -> None:
    bus, kiosk, shop = await buses.bus("kiosk"), Kiosk(), await buses.bus("shop")
    await buses.serve(bus, kiosk.router)
    call = asyncio.create_task(shop.request(Quote(), timeout=5))
    await kiosk.began.wait()
    running = handler(bus)
    assert running.oldest_seconds is not None
    assert (running.full_seconds, running.timeout) == (None, None)
    assert handler(bus, "kiosk.settle").timeout == JOB_TIMEOUT
    kiosk.go.set()
    await call


@in_memory
async def test_a_message_whose_handler_runs_is_found_as_running(buses: MemoryBuses) -> None:
    bus, kiosk, shop = await buses.bus("kiosk"), Kiosk(), await buses.bus("shop")
    await buses.serve(bus, kiosk.router)
    call = asyncio.create_task(shop.request(Quote(), timeout=5))
    await kiosk.began.wait()
    (message,) = [
        each for each in bus._server.consumers[0].state.in_flight.open.values() if each.started
    ]
    (running,) = bus.report.find(message.envelope.id).messages
    assert (running.action, running.type, running.source, running.queue) == (
        "running",
        "kiosk.quote.v2",
        "shop",
        "kiosk.requests.quote.v2",
    )
    assert bus.report.find(message.envelope.id[:8]).messages[0].id == running.id
    kiosk.go.set()
    await call
    await buses.settled()
    assert [each.action for each in bus.report.find(running.id).messages] == ["handled"]


@in_memory
async def test_the_last_error_has_its_code_its_time_and_its_place_and_no_text(
    buses: MemoryBuses,
) -> None:
    bus, kiosk, shop = await buses.bus("kiosk"), Kiosk(ValueError(SECRET)), await buses.bus("shop")
    kiosk.go.set()
    await buses.serve(bus, kiosk.router)
    with pytest.raises(BusError):
        await shop.request(Quote(), timeout=5)
    await buses.settled()
    error = handler(bus).last_error
    assert error is not None
    assert (error.code, error.at // 1000) == ("internal", int(buses.clock()))
    assert error.place is not None
    assert error.place.startswith("tests/unit/runtime/test_instance_report.py:")
    assert SECRET not in bus.report.stats().model_dump_json()


@in_memory
async def test_a_later_success_keeps_the_last_error(buses: MemoryBuses) -> None:
    bus, shop = await buses.bus("kiosk"), await buses.bus("shop")
    errors: list[Exception] = [NotFound("gone")]
    router = Router("kiosk")

    @router.request(Quote)
    async def quote(_: Quote) -> Sum:
        if errors:
            raise errors.pop()
        return Sum(amount=1)

    await buses.serve(bus, router)
    with pytest.raises(NotFound):
        await shop.request(Quote(), timeout=5)
    await shop.request(Quote(), timeout=5)
    await buses.settled()
    state = handler(bus)
    assert state.last_error is not None
    assert (state.last_error.code, state.last_handled is not None) == ("not_found", True)


@in_memory
async def test_a_paused_consumer_gives_its_reason(buses: MemoryBuses) -> None:
    bus, kiosk = await buses.bus("kiosk"), Kiosk()
    await buses.serve(bus, kiosk.router)
    (consumer,) = [each for each in bus._server.consumers if "jobs" in each.name]
    assert isinstance(consumer, EndpointConsumer)
    await consumer.pause()
    paused = handler(bus, "kiosk.settle")
    assert (paused.pauses, paused.ready) == (("poison-isolation",), False)
    await consumer.resume()
    await consumer.wait_ready()
    resumed = handler(bus, "kiosk.settle")
    assert (resumed.pauses, resumed.ready) == ((), True)


@in_memory
async def test_the_handler_of_a_poison_candidate_names_the_message(buses: MemoryBuses) -> None:
    bus, kiosk = await buses.bus("kiosk"), Kiosk()
    await buses.serve(bus, kiosk.router)
    (consumer,) = [each for each in bus._server.consumers if "jobs" in each.name]
    candidate = PoisonCandidate(queue=consumer.name, id=f"{'a' * 70}\udfff", losses=2)
    consumer.state.candidates.add(candidate)
    waiting = CandidateInfo(id="a" * 64, lost_deliveries=2, running=False)
    assert handler(bus, "kiosk.settle").candidate == waiting
    assert handler(bus, "kiosk.opened").candidate is None
    assert await candidate.wait_turn()
    running = waiting.model_copy(update={"running": True})
    assert handler(bus, "kiosk.settle").candidate == running
    candidate.end()
    await until(lambda: handler(bus, "kiosk.settle").candidate is None, "the end")
