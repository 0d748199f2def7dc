"""Questions, answers and announcements of buses on one model broker."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import cast

import pytest

from bus import Bus, ConfigurationError, Router, Unavailable
from bus.messaging.control import FindMessages, GetInfo, GetStats, Ping, Target
from bus.messaging.ports.transport import PublishOutcome, Transport
from bus.messaging.topology.addresses import Address
from bus.runtime.discovery.open_asker import open_asker
from bus.testing import MemoryBuses
from bus.testing.explicit_settings import ExplicitSettings
from bus.transports.memory import MemoryBroker, MemoryTransport
from bus.transports.wire_format import AmqpMessage
from tests.polling import until
from tests.unit.ledger import GetTotal, Total
from tests.unit.runtime.in_memory import in_memory

OFF = ExplicitSettings(auth="off")


def ledger() -> Router:
    router = Router("ledger")

    @router.request(GetTotal)
    async def total(request: GetTotal) -> Total:
        return Total(total=len(request.account))

    return router


@asynccontextmanager
async def two_services() -> AsyncIterator[tuple[MemoryBuses, Bus, Bus]]:
    async with MemoryBuses() as buses:
        office, books = await buses.bus("office"), await buses.bus("ledger")
        await buses.serve(books, ledger())
        yield buses, office, books


async def test_every_live_instance_answers_a_ping() -> None:
    async with two_services() as (buses, office, books):
        again = await buses.bus("ledger")
        answers = await office.discovery.ask(Ping(), expected=3)
        found = {(each.record.service, each.record.instance) for each in answers}
        assert found == {(bus.service, bus.instance) for bus in (office, books, again)}
        assert all(each.record.state == "ready" for each in answers)
        assert all(0 <= each.seconds < 1 for each in answers)


async def test_a_question_to_a_service_is_answered_by_its_instances_only() -> None:
    async with two_services() as (_, office, books):
        (answer,) = await office.discovery.ask(Ping(), Target("ledger"), window=0.05)
        assert answer.record.instance == books.instance


async def test_a_question_to_an_instance_is_answered_by_it_alone() -> None:
    async with two_services() as (buses, office, books):
        await buses.bus("ledger")
        target = Target("ledger", books.instance)
        (answer,) = await office.discovery.ask(Ping(), target, window=0.05)
        assert answer.record.instance == books.instance


async def test_a_question_that_nobody_answers_returns_no_answers_after_its_window() -> None:
    async with two_services() as (_, office, _):
        assert await office.discovery.ask(Ping(), Target("nobody"), window=0.02) == []


async def test_info_stats_and_find_are_answered() -> None:
    async with two_services() as (_, office, books):
        target = Target("ledger")
        for question in (GetInfo(), GetStats(), FindMessages(correlation_id="c-1")):
            (answer,) = await office.discovery.ask(question, target, expected=1)
            assert answer.record.instance == books.instance
            assert isinstance(answer.record, question.answer)


async def test_the_answer_to_info_names_the_versions() -> None:
    async with MemoryBuses() as buses:
        bus = await buses.bus("office", service_version="4.2")
        (answer,) = await bus.discovery.ask(GetInfo(), expected=1)
        assert answer.record.version == "4.2"
        assert answer.record.bus_version
        assert answer.record.python_version


async def test_the_answer_to_info_has_the_contracts_that_are_served_now() -> None:
    async with MemoryBuses() as buses:
        bus = await buses.bus("ledger")

        async def types() -> list[str]:
            (answer,) = await bus.discovery.ask(GetInfo(), expected=1)
            return [each.type for each in answer.record.contracts]

        assert await types() == []
        async with bus.serving(ledger()):
            assert await types() == ["ledger.total.v1"]
        assert await types() == []


async def test_start_and_stop_are_announced() -> None:
    async with MemoryBuses() as buses:
        office = await buses.bus("office")
        heard = office.discovery.announcements()
        async with await_listener(buses):
            books = await buses.bus("ledger")
            async with books.serving(ledger()):
                started = await asyncio.wait_for(anext(heard), 2)
            stopping = await asyncio.wait_for(anext(heard), 2)
        assert (started.service, started.instance, started.event, started.state) == (
            "ledger",
            books.instance,
            "started",
            "ready",
        )
        assert (stopping.instance, stopping.event, stopping.state) == (
            books.instance,
            "stopping",
            "draining",
        )


@asynccontextmanager
async def await_listener(buses: MemoryBuses) -> AsyncIterator[None]:
    await until(
        lambda: any(
            ".announcements." in name and buses.broker.consumers(name)
            for name in buses.broker.queues
        ),
        "the queue of announcements",
    )
    yield


async def test_a_bus_that_only_sends_announces_its_end() -> None:
    async with MemoryBuses() as buses:
        office = await buses.bus("office")
        heard = office.discovery.announcements()
        async with (
            await_listener(buses),
            Bus("mail", settings=OFF, transport=MemoryTransport(buses.broker)),
        ):
            pass
        assert (await asyncio.wait_for(anext(heard), 2)).service == "mail"


async def test_the_end_of_a_bus_ends_its_streams_of_announcements() -> None:
    async with MemoryBuses() as buses:
        office = await buses.bus("office")
        heard = office.discovery.announcements()
        reader = asyncio.create_task(anext(heard, None))
        await asyncio.sleep(0)
    assert await reader is None  # and not a cancellation that its task did not ask for
    with pytest.raises(StopAsyncIteration):
        await anext(heard)


async def test_with_discovery_off_a_bus_has_no_control_queue_and_does_not_answer() -> None:
    async with MemoryBuses() as buses:
        quiet = await buses.bus("ledger", discovery="off")
        assert [name for name in buses.broker.queues if ".control." in name] == []
        office = await buses.bus("office")
        assert await office.discovery.ask(Ping(), Target("ledger"), window=0.02) == []
        with pytest.raises(Unavailable, match="BUS_DISCOVERY=on"):
            await quiet.discovery.ask(Ping())
        with pytest.raises(Unavailable, match="BUS_DISCOVERY=on"):
            await anext(quiet.discovery.announcements())


async def test_a_command_asks_without_being_an_instance() -> None:
    async with two_services() as (buses, _, _):
        transport = MemoryTransport(buses.broker)
        async with open_asker(OFF, transport=transport) as asker:
            answers = await asker.ask(Ping(), window=0.05)
        assert sorted(each.record.service for each in answers) == ["ledger", "office"]


async def test_a_command_hears_announcements() -> None:
    async with (
        MemoryBuses() as buses,
        open_asker(OFF, transport=MemoryTransport(buses.broker)) as asker,
    ):
        heard = asker.announcements()
        async with await_listener(buses):
            books = await buses.bus("ledger")
            await buses.serve(books, ledger())
            assert (await asyncio.wait_for(anext(heard), 2)).event == "started"


async def test_a_window_must_be_a_number_of_seconds_up_to_a_minute() -> None:
    async with MemoryBuses() as buses:
        office = await buses.bus("office")
        for window in (0, -1, 61, float("nan")):
            with pytest.raises(ConfigurationError, match="window"):
                await office.discovery.ask(Ping(), window=window)


async def test_a_target_has_no_wildcards() -> None:
    async with MemoryBuses() as buses:
        office = await buses.bus("office")
        with pytest.raises(ConfigurationError, match="invalid characters"):
            await office.discovery.ask(Ping(), Target("#"))
        with pytest.raises(ConfigurationError, match="must have a service"):
            await office.discovery.ask(Ping(), Target(instance="a"))


def test_between_questions_no_message_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    keys: list[str] = []
    publish = MemoryBroker.publish

    def counted(self: MemoryBroker, wire: AmqpMessage, address: Address) -> PublishOutcome:
        keys.append(address.routing_key)
        return publish(self, wire, address)

    monkeypatch.setattr(MemoryBroker, "publish", counted)

    @in_memory
    async def run(buses: MemoryBuses) -> None:
        office, books = await buses.bus("office"), await buses.bus("ledger")
        await buses.serve(books, ledger())
        await asyncio.sleep(3600)
        assert keys == ["announce.ledger"]
        await office.discovery.ask(Ping(), expected=2)
        assert keys[1:] == ["ask.all", *[f"answer.office.{office.instance}"] * 2]
        await asyncio.sleep(3600)
        assert len(keys) == 4

    run()


async def test_twenty_instances_answer_a_ping_within_a_second() -> None:
    async with MemoryBuses() as buses:
        office, *_ = [await buses.bus("office") for _ in range(20)]
        answers = await office.discovery.ask(Ping(), window=10, expected=20)
        assert len({each.record.instance for each in answers}) == 20
        assert max(each.seconds for each in answers) < 1


async def test_a_bus_that_is_entered_again_answers_again() -> None:
    async with MemoryBuses() as buses:
        office = await buses.bus("office")
        books = Bus("ledger", settings=OFF, transport=MemoryTransport(buses.broker))
        for _ in range(2):
            async with books:
                (answer,) = await office.discovery.ask(Ping(), Target("ledger"), expected=1)
                assert answer.record.instance == books.instance


class PlainTransport:
    """A transport of a user, which has no control channel."""

    def __init__(self, inner: MemoryTransport) -> None:
        for name in ("start", "declare", "send", "consume", "depth", "close"):
            setattr(self, name, getattr(inner, name))
        self.supports_consumer_timeout = inner.supports_consumer_timeout
        self.has_management_api = self.is_refused = False


async def test_a_transport_without_a_control_channel_has_no_discovery_and_one_line(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "bus.discovery")
    async with MemoryBuses() as buses:
        transport = cast("Transport", PlainTransport(MemoryTransport(buses.broker)))
        bus = Bus("ledger", settings=OFF, transport=transport)
        async with bus, bus.serving(ledger()):
            assert bus.ready
            with pytest.raises(Unavailable, match="has no control channel"):
                await bus.discovery.ask(Ping())
    lines = [each.getMessage() for each in caplog.records if each.name == "bus.discovery"]
    assert lines == ["ledger: discovery is off, because PlainTransport has no control channel"]


async def test_a_blocked_broker_delays_neither_start_nor_stop() -> None:
    async with MemoryBuses() as buses:
        bus = Bus("ledger", settings=OFF, transport=MemoryTransport(buses.broker))
        buses.broker.block()
        began = asyncio.get_running_loop().time()
        async with bus, bus.serving(ledger()):
            pass
        assert asyncio.get_running_loop().time() - began < 1
        buses.broker.unblock()


async def test_a_stop_that_is_cancelled_while_discovery_ends_closes_the_connection(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    begun = asyncio.Event()

    async def hang() -> None:
        begun.set()
        await asyncio.Event().wait()

    async with MemoryBuses() as buses:
        transport = MemoryTransport(buses.broker)
        bus = Bus("ledger", settings=OFF, transport=transport)
        await bus.__aenter__()
        monkeypatch.setattr(bus._discovery, "close", hang)
        stopping = asyncio.create_task(bus.__aexit__(None, None, None))
        await begun.wait()
        stopping.cancel()
        with pytest.raises(asyncio.CancelledError):
            await stopping
        assert not transport._is_connected


async def test_the_answers_arrive_again_after_a_lost_connection() -> None:
    async with two_services() as (buses, office, books):
        buses.broker.drop_all()
        await until(lambda: office.ready and books.ready, "the connections")
        answers = 0
        while answers < 2:
            answers = len(await office.discovery.ask(Ping(), window=0.05, expected=2))
