"""Measurements of messages: what a running bus counts, times and remembers of each message."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from bus import Bus, Context, Event, Job, Message, NotFound, Request, RetryPolicy, Router, contract
from bus.contracts.contract import encode
from bus.errors import BusError
from bus.messaging.envelope import Envelope, new_id
from bus.messaging.handler import Handler
from bus.messaging.histograms import count_of
from bus.messaging.service_info import RememberedMessage, Series
from bus.messaging.topology.addresses import address_of
from bus.storage.memory.message_history import MessageHistory
from bus.testing import MemoryBuses, MemoryTransport
from bus.testing.explicit_settings import ExplicitSettings
from tests.polling import until
from tests.unit.fakes import FakeDelivery
from tests.unit.runtime.in_memory import in_memory

SECRET = "Eleonora Quist"


class Sum(Message):
    amount: int


class Word(Message):
    word: str


@contract("booth.quote", version=1, idempotent=True)
class Quote(Request[Sum]):
    customer: str = SECRET


@contract("booth.charge", version=3)
class Charge(Request[Sum]):
    customer: str = SECRET


@contract("booth.settle", version=1, retry=RetryPolicy(attempts=2, first_delay=5))
class Settle(Job[Sum]):
    customer: str = SECRET


@contract("booth.opened", version=2)
class Opened(Event):
    shop: str = "north"


Act = Callable[[], Awaitable[int]]


async def one() -> int:
    return 1


async def fail() -> int:
    raise ValueError(SECRET)


def booth(act: Act = one, *, concurrency: int = 16) -> Router:
    router = Router("booth")

    @router.request(Quote, concurrency=concurrency)
    async def quote(_: Quote) -> Sum:
        return Sum(amount=await act())

    @router.job(Settle)
    async def settle(_: Settle, context: Context) -> Sum:
        await context.progress(0.5)
        return Sum(amount=await act())

    @router.event(Opened, subscription="signs")
    async def light(_: Opened) -> None:
        await act()

    return router


async def pair(buses: MemoryBuses, act: Act = one, **settings: Any) -> tuple[Bus, Bus]:
    """Return the bus of a served booth, and the bus of a shop that calls it."""
    server = await buses.bus("booth", **settings)
    await buses.serve(server, booth(act))
    return server, await buses.bus("shop")


def found(bus: Bus, name: str) -> list[Series]:
    return [each for each in bus.report.stats().series if each.name == name]


def totals(bus: Bus, name: str, *labels: str) -> dict[tuple[str, ...], float]:
    """Return the values of an instrument by some of its labels."""
    return {tuple(each.labels[label] for label in labels): each.value for each in found(bus, name)}


def remembered(bus: Bus) -> list[RememberedMessage]:
    """Return all messages that a bus remembers."""
    history = bus._report._runtime.history
    assert isinstance(history, MessageHistory)
    ids = dict.fromkeys(entry[8] for entry in [*history._entries, *history._unverified])
    return [message for each in ids for message in history.find(each)]


def actions(bus: Bus, correlation_id: str) -> list[tuple[str, str]]:
    messages = bus.report.find(correlation_id).messages
    return [(each.action, each.outcome) for each in messages]


@in_memory
async def test_a_request_is_counted_and_timed_by_its_caller_and_by_its_service(
    buses: MemoryBuses,
) -> None:
    server, shop = await pair(buses)
    await shop.request(Quote(), timeout=5)
    (sent,) = found(shop, "messages.sent")
    assert (sent.value, sent.labels) == (
        1,
        {"operation": "booth.quote", "version": "1", "kind": "request", "outcome": "ok"},
    )
    (handled,) = found(server, "messages.handled")
    assert (handled.value, handled.labels) == (
        1,
        {
            "operation": "booth.quote",
            "version": "1",
            "kind": "request",
            "subscription": "",
            "caller": "shop",
            "outcome": "ok",
        },
    )
    assert found(shop, "messages.send.duration")[0].count == 1
    assert found(server, "messages.handler.duration")[0].count == 1
    assert found(server, "messages.start.delay")[0].count == 1


@in_memory
async def test_events_and_jobs_are_counted_with_their_kind_version_and_subscription(
    buses: MemoryBuses,
) -> None:
    server = await buses.bus("booth")
    await buses.serve(server, booth())
    await server.publish(Opened())
    await (await server.submit(Settle())).result()
    await buses.settled()
    assert totals(server, "messages.sent", "operation", "version", "kind") == {
        ("booth.opened", "2", "event"): 1,
        ("booth.settle", "1", "job"): 1,
    }
    assert totals(server, "messages.handled", "operation", "version", "kind", "subscription") == {
        ("booth.opened", "2", "event", "signs"): 1,
        ("booth.settle", "1", "job", ""): 1,
    }


@in_memory
async def test_an_error_of_the_handler_is_counted_by_its_code_at_both_sides(
    buses: MemoryBuses,
) -> None:
    async def refuse() -> int:
        raise NotFound("no such customer")

    server, shop = await pair(buses, refuse)
    with pytest.raises(NotFound):
        await shop.request(Quote(), timeout=5)
    assert totals(server, "messages.handled", "outcome") == {("not_found",): 1}
    assert totals(shop, "messages.sent", "outcome") == {("not_found",): 1}
    assert found(server, "messages.handler.duration")[0].count == 1


@in_memory
async def test_a_request_that_no_service_serves_is_counted_by_its_sender(
    buses: MemoryBuses,
) -> None:
    shop = await buses.bus("shop")
    with pytest.raises(BusError):
        await shop.request(Charge(), timeout=5)
    assert totals(shop, "messages.sent", "operation", "version", "outcome") == {
        ("booth.charge", "3", "unavailable"): 1
    }


@in_memory
async def test_a_reply_that_breaks_its_contract_is_not_counted_as_a_success(
    buses: MemoryBuses,
) -> None:
    def wrong(inner: Handler) -> Handler:
        async def call(envelope: Envelope) -> Envelope | None:
            reply = await inner(envelope)
            return None if reply is None else reply.replace(body=b'{"other": 1}')

        return call

    await pair(buses)
    transport = MemoryTransport(buses.broker, clock=buses.clock)
    shop = Bus(
        "shop",
        settings=ExplicitSettings(auth="off"),
        transport=transport,
        client=[wrong],
        clock=buses.clock,
    )
    async with shop:
        with pytest.raises(BusError):
            await shop.request(Quote(), timeout=5)
        assert totals(shop, "messages.sent", "outcome") == {("invalid_argument",): 1}


@in_memory
async def test_messages_are_measured_if_a_user_replaces_all_middlewares(
    buses: MemoryBuses,
) -> None:
    transports = [MemoryTransport(buses.broker, clock=buses.clock) for _ in range(2)]
    server, shop = (
        Bus(
            name,
            settings=ExplicitSettings(auth="off"),
            transport=each,
            client=[],
            server=[],
            clock=buses.clock,
        )
        for name, each in zip(("booth", "shop"), transports, strict=True)
    )
    async with server, shop, server.serving(booth()):
        await shop.request(Quote(), timeout=5)
        assert totals(shop, "messages.sent", "outcome") == {("ok",): 1}
        assert totals(server, "messages.handled", "caller", "outcome") == {("shop", "ok"): 1}
        assert shop.report.find("").remembered == 1


@in_memory
async def test_a_cancelled_call_is_counted_as_cancelled(buses: MemoryBuses) -> None:
    began = asyncio.Event()

    async def wait() -> int:
        began.set()
        await asyncio.Event().wait()
        return 1

    _, shop = await pair(buses, wait)
    call = asyncio.create_task(shop.request(Quote(), timeout=50))
    await began.wait()
    call.cancel()
    await asyncio.wait([call])
    assert totals(shop, "messages.sent", "outcome") == {("cancelled",): 1}


@in_memory
async def test_an_attempt_that_its_deadline_ends_is_counted_with_that_code(
    buses: MemoryBuses,
) -> None:
    async def wait() -> int:
        await asyncio.Event().wait()
        return 1

    server, shop = await pair(buses, wait)
    with pytest.raises(BusError):
        await shop.request(Quote(), timeout=1)
    await buses.settled()
    assert totals(server, "messages.handled", "outcome") == {("deadline_exceeded",): 1}


@in_memory
async def test_retries_and_dead_letters_are_counted_once_each(buses: MemoryBuses) -> None:
    server, shop = await pair(buses, fail)
    with pytest.raises(BusError):
        await (await shop.submit(Settle())).result()
    await buses.settled(retries=True)
    assert totals(server, "messages.retried", "operation", "outcome") == {
        ("booth.settle", "internal"): 1
    }
    assert totals(server, "messages.dead_lettered", "operation", "outcome") == {
        ("booth.settle", "internal"): 1
    }
    assert totals(server, "messages.handled", "outcome") == {("internal",): 2}


@in_memory
async def test_only_the_first_attempt_has_a_delay_from_publish_to_start(
    buses: MemoryBuses,
) -> None:
    server, shop = await pair(buses, fail)
    with pytest.raises(BusError):
        await (await shop.submit(Settle())).result()
    (delay,) = found(server, "messages.start.delay")
    assert (delay.count, delay.max < 5) == (1, True)
    assert found(server, "messages.handler.duration")[0].count == 2


@in_memory
async def test_the_delay_of_a_waiting_job_is_its_whole_wait(buses: MemoryBuses) -> None:
    shop, server = await buses.bus("shop"), await buses.bus("booth")
    async with server.serving(booth()):
        pass  # the queue exists from now on
    await shop.submit(Settle())
    await asyncio.sleep(2.5)
    await buses.serve(server, booth())
    await buses.settled()
    (delay,) = found(server, "messages.start.delay")
    assert 2.4 < delay.max < 3  # the clock of the test rounds to milliseconds


@in_memory
async def test_a_message_from_the_future_has_no_delay(buses: MemoryBuses) -> None:
    server = await buses.bus("booth")
    await buses.serve(server, booth())
    transport = MemoryTransport(buses.broker, clock=lambda: buses.clock() + 60)
    ahead = Bus(
        "shop",
        settings=ExplicitSettings(auth="off"),
        transport=transport,
        clock=lambda: buses.clock() + 60,
    )
    async with ahead:
        await ahead.submit(Settle())
        await buses.settled()
    (delay,) = found(server, "messages.start.delay")
    assert (delay.count, delay.max) == (1, 0)


@in_memory
async def test_a_job_of_an_earlier_version_has_no_delay(buses: MemoryBuses) -> None:
    def earlier(inner: Handler) -> Handler:
        return lambda envelope: inner(envelope.replace(headers={}))

    server = await buses.bus("booth")
    await buses.serve(server, booth())
    transport = MemoryTransport(buses.broker, clock=buses.clock)
    settings = ExplicitSettings(auth="off")
    async with Bus(
        "shop", settings=settings, transport=transport, client=[earlier], clock=buses.clock
    ) as shop:
        await shop.submit(Settle())
        await buses.settled()
    assert found(server, "messages.start.delay") == []
    assert totals(server, "messages.handled", "outcome") == {("ok",): 1}


@in_memory
async def test_a_copy_of_a_handled_message_is_counted_as_a_duplicate(buses: MemoryBuses) -> None:
    server, _ = await pair(buses)
    copies: list[Envelope] = []

    def keep(inner: Handler) -> Handler:
        def call(envelope: Envelope) -> Awaitable[Envelope | None]:
            copies.append(envelope)
            return inner(envelope)

        return call

    transport = MemoryTransport(buses.broker, clock=buses.clock)
    async with Bus(
        "shop",
        settings=ExplicitSettings(auth="off"),
        transport=transport,
        client=[keep],
        clock=buses.clock,
    ) as sender:
        await sender.submit(Settle())
        await buses.settled()
        await transport.send(copies[0], address_of("job", "booth.settle.v1"), timeout=5)
        await buses.settled()
    assert totals(server, "messages.duplicates", "operation") == {("booth.settle",): 1}
    assert totals(server, "messages.handled", "outcome") == {("ok",): 1}


@in_memory
async def test_a_forged_request_is_counted_as_unverified_and_adds_no_label(
    buses: MemoryBuses,
) -> None:
    server = await buses.bus("booth", auth="dev", key="1" * 32)
    await buses.serve(server, booth())
    forger = await buses.bus("forger", auth="dev", key="2" * 32)
    for _ in range(3):
        with pytest.raises(BusError):
            await forger.request(Quote(), timeout=1)
    await buses.settled()
    assert totals(server, "messages.handled", "caller", "outcome") == {
        ("unverified", "unauthenticated"): 3
    }
    assert found(server, "messages.handler.duration") == []
    (quote, *_) = server.report.stats().handlers
    assert quote.last_error is None


@in_memory
async def test_forged_requests_do_not_push_messages_out_of_the_history(
    buses: MemoryBuses,
) -> None:
    server = await buses.bus("booth", auth="dev", key="1" * 32, remembered_messages=5)
    await buses.serve(server, booth())
    shop = await buses.bus("shop", auth="dev", key="1" * 32)
    forger = await buses.bus("forger", auth="dev", key="2" * 32)
    await shop.request(Quote(), timeout=5)
    for _ in range(10):
        with pytest.raises(BusError):
            await forger.request(Quote(), timeout=1)
    await buses.settled()
    (genuine,) = remembered(shop)
    (handled,) = server.report.find(genuine.correlation_id).messages
    assert (handled.action, handled.source, server.report.find("").remembered) == (
        "handled",
        "shop",
        11,
    )


@in_memory
async def test_the_history_has_each_step_of_a_job_without_its_payload(buses: MemoryBuses) -> None:
    server, shop = await pair(buses, fail)
    handle = await shop.submit(Settle())
    with pytest.raises(BusError):
        await handle.result()
    await buses.settled(retries=True)
    (sent,) = shop.report.find(handle.id).messages
    assert (sent.action, sent.type, sent.source) == ("sent", "booth.settle.v1", "shop")
    assert actions(server, handle.id) == [
        ("handled", "internal"),
        ("retried", "internal"),
        ("handled", "internal"),
        ("dead-lettered", "internal"),
    ]
    first, retried, second, dead = server.report.find(handle.id).messages
    assert (first.attempt, second.attempt, retried.tier, first.tier) == (1, 2, "5s", None)
    assert {each.queue for each in (first, retried, second, dead)} == {"booth.jobs.settle.v1"}
    assert {each.correlation_id for each in (first, retried, dead)} == {sent.correlation_id}
    assert SECRET not in server.report.find(handle.id).model_dump_json()


@in_memory
async def test_the_history_links_a_message_to_the_message_that_caused_it(
    buses: MemoryBuses,
) -> None:
    router = Router("shop")

    @router.event(Opened)
    async def buy(_: Opened, context: Context) -> None:
        await context.bus.request(Quote(), timeout=5)

    server, shop = await pair(buses)
    await buses.serve(shop, router)
    await server.publish(Opened())
    await buses.settled()
    (event,) = [each for each in remembered(server) if each.action == "sent"]
    (request,) = [each for each in remembered(shop) if each.action == "sent"]
    assert (request.correlation_id, request.causation_id) == (event.id, event.id)
    assert {each.type for each in server.report.find(event.id).messages} == {
        "booth.opened.v2",
        "booth.quote.v1",
    }


@in_memory
async def test_an_expired_job_is_remembered_as_refused_with_its_code(buses: MemoryBuses) -> None:
    shop, server = await buses.bus("shop", message_ttl=1), await buses.bus("booth")
    async with server.serving(booth()):
        pass  # the queue exists from now on
    handle = await shop.submit(Settle())
    await asyncio.sleep(2)
    await buses.serve(server, booth())
    await buses.settled()
    assert actions(server, handle.id) == [
        ("refused", "deadline_exceeded"),
        ("dead-lettered", "deadline_exceeded"),
    ]
    assert totals(server, "messages.handled", "caller", "outcome") == {
        ("shop", "deadline_exceeded"): 1
    }
    assert found(server, "messages.handler.duration") == []


@in_memory
async def test_the_history_has_the_lost_deliveries_of_a_message_that_is_processed_alone(
    buses: MemoryBuses,
) -> None:
    server, _ = await pair(buses)
    (consumer,) = [each for each in server._server.consumers if "jobs" in each.name]
    job = Envelope(
        id=new_id(),
        type="booth.settle.v1",
        role="job",
        source="shop",
        queue=consumer.name,
        body=encode(Settle()),
    )
    count = {"x-delivery-count": 3}
    consumer._receiver.on_delivery(FakeDelivery(job, redelivered=True, broker_headers=count))
    await until(lambda: server.report.find(job.id).messages, "the job")
    (handled,) = server.report.find(job.id).messages
    assert (handled.action, handled.lost_deliveries) == ("handled", 3)


@in_memory
async def test_a_send_that_fails_is_remembered_with_its_code(buses: MemoryBuses) -> None:
    shop = await buses.bus("shop")
    with pytest.raises(BusError):
        await shop.request(Charge(), timeout=5)
    (sent,) = remembered(shop)
    assert (sent.action, sent.outcome) == ("sent", "unavailable")


@in_memory
async def test_a_lost_connection_is_counted_and_a_closed_one_is_not(buses: MemoryBuses) -> None:
    shop = await buses.bus("shop")
    buses.broker.drop_all()
    assert found(shop, "connections.lost")[0].value == 0
    await until(lambda: found(shop, "connections.lost")[0].value, "the lost connection")
    assert found(shop, "connections.lost")[0].value == 1
    shop._client.replies.begin_close()
    shop._client.replies.on_connection_lost()
    assert found(shop, "connections.lost")[0].value == 1


@in_memory
async def test_with_discovery_off_a_bus_measures_and_remembers_nothing(
    buses: MemoryBuses,
) -> None:
    server = await buses.bus("booth", discovery="off")
    await buses.serve(server, booth())
    shop = await buses.bus("shop", discovery="off")
    await shop.request(Quote(), timeout=5)
    assert {each.name for each in server.report.stats().series} == {
        "messages.in_flight",
        "handler.slots",
        "handler.slots.free",
        "consumers.paused",
        "ready",
    }
    assert [each.name for each in shop.report.stats().series] == ["ready"]
    assert shop.report.find("x").remembered == 0
    assert server._report._runtime.is_measured is False


@in_memory
async def test_with_a_health_port_a_bus_measures_although_discovery_is_off(
    buses: MemoryBuses,
) -> None:
    server, shop = await pair(buses, discovery="off", health_port=8080)
    await shop.request(Quote(), timeout=5)
    assert totals(server, "messages.handled", "outcome") == {("ok",): 1}
    assert server.report.find("x").remembered == 0


@in_memory
async def test_without_remembered_messages_a_bus_still_measures(buses: MemoryBuses) -> None:
    server, shop = await pair(buses, remembered_messages=0)
    await shop.request(Quote(), timeout=5)
    assert totals(server, "messages.handled", "outcome") == {("ok",): 1}
    assert server.report.find("x").remembered == 0


@in_memory
async def test_progress_of_a_job_is_not_counted(buses: MemoryBuses) -> None:
    server, shop = await pair(buses)
    await (await shop.submit(Settle())).result()
    await buses.settled()
    assert totals(server, "messages.sent") == {}
    assert totals(shop, "messages.handled") == {}
    assert count_of(found(server, "messages.handler.duration")[0].buckets) == 1
