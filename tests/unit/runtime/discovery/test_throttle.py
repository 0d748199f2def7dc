"""The throttle of a control queue: a flood waits at the broker, undecoded."""

import asyncio
import logging
from collections.abc import Callable
from typing import cast

import pytest

from bus import Bus
from bus.messaging.control import Ping, Target
from bus.messaging.envelope import Envelope, new_id
from bus.messaging.ports.transport import Delivery
from bus.messaging.topology.control import control_address
from bus.runtime.discovery.throttle import Throttle
from bus.testing import MemoryBuses
from bus.testing.explicit_settings import ExplicitSettings
from bus.transports.memory import MemoryTransport
from tests.unit.fakes import FakeDelivery, virtual
from tests.unit.runtime.in_memory import in_memory


def message(body: bytes = b"{}") -> Envelope:
    return Envelope(id=new_id(), type="x", role="control", source="mallory", body=body)


class Lazy:
    """A delivery that counts how often any of them is decoded."""

    decoded = 0

    def __init__(self, envelope: Envelope) -> None:
        self._envelope = envelope
        self.acks = 0

    @property
    def envelope(self) -> Envelope:
        Lazy.decoded += 1
        return self._envelope

    async def ack(self) -> bool:
        self.acks += 1
        return True


class Flood:
    """An throttle, and the messages that it has received and passed on."""

    def __init__(self) -> None:
        self.passed: list[Envelope] = []
        self.deliveries: list[FakeDelivery | Lazy] = []
        self.throttle = Throttle("ledger", self.passed.append)

    def deliver(
        self, count: int, kind: Callable[[Envelope], FakeDelivery | Lazy] = FakeDelivery
    ) -> None:
        for _ in range(count):
            self.deliveries.append(kind(message()))
            self.throttle.on_delivery(cast("Delivery", self.deliveries[-1]))

    @property
    def acked(self) -> int:
        return sum(each.acks for each in self.deliveries)


@virtual
async def test_a_message_is_acked_after_it_was_passed_on() -> None:
    flood = Flood()
    flood.deliver(3)
    assert (len(flood.passed), flood.acked) == (3, 0)
    await asyncio.sleep(0)
    assert flood.acked == 3


@virtual
async def test_a_flood_gets_500_messages_a_second_and_the_rest_waits_undecoded_and_unacked() -> (
    None
):
    flood = Flood()
    flood.deliver(2000, Lazy)
    await asyncio.sleep(0)
    assert (len(flood.passed), flood.acked, Lazy.decoded) == (500, 500, 500)
    await asyncio.sleep(1)
    assert 980 <= len(flood.passed) == flood.acked == Lazy.decoded <= 1000
    await asyncio.sleep(3)
    assert len(flood.passed) == flood.acked == 2000


@virtual
async def test_while_answers_are_expected_thousands_of_messages_are_taken() -> None:
    flood = Flood()
    flood.throttle.expect_answers(expected=True)
    flood.deliver(8000)
    await asyncio.sleep(1)
    assert 5900 <= len(flood.passed) <= 6000
    assert not is_flooded(flood)
    flood.throttle.expect_answers(expected=False)
    await flood.throttle.close()


@virtual
async def test_a_flood_is_logged_once_a_minute_and_known_for_a_minute(
    caplog: pytest.LogCaptureFixture,
) -> None:
    flood = Flood()
    flood.deliver(600)
    (line,) = [each.getMessage() for each in caplog.records if each.levelno >= logging.WARNING]
    assert line.startswith(
        "ledger: more than 500 messages per second arrive on the control channel"
    )
    assert is_flooded(flood)
    await asyncio.sleep(61)
    assert not is_flooded(flood)
    flood.deliver(600)
    assert len(caplog.records) == 2


@virtual
async def test_after_its_end_no_message_is_passed_on() -> None:
    flood = Flood()
    flood.deliver(501)
    await flood.throttle.close()
    flood.deliver(1)
    await asyncio.sleep(1)
    assert len(flood.passed) == 500


@virtual
async def test_an_error_of_one_message_does_not_end_the_throttle(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def fail(envelope: Envelope) -> None:
        raise ValueError(f"Eleonora {envelope.id}")

    throttle, delivery = Throttle("ledger", fail), FakeDelivery(message())
    throttle.on_delivery(cast("Delivery", delivery))
    await asyncio.sleep(0)
    assert delivery.acks == 1
    assert "could not be handled" in caplog.text
    assert "Eleonora" not in caplog.text


def is_flooded(flood: Flood) -> bool:
    return flood.throttle.is_flooded


OFF = ExplicitSettings(auth="off")


def test_a_flood_stays_in_the_queue_of_the_broker_and_later_questions_are_answered() -> None:
    @in_memory
    async def run(buses: MemoryBuses) -> None:
        office, books = await buses.bus("office"), await buses.bus("ledger")
        sender = MemoryTransport(buses.broker)
        address = control_address(f"answer.ledger.{books.instance}")
        async with Bus("mallory", settings=OFF, transport=sender):
            for _ in range(2000):
                await sender.send(message(), address, timeout=5)
        (queue,) = [name for name in buses.broker.queues if name.startswith("ledger.control.")]
        assert buses.broker.depth(queue) > 1000
        await asyncio.sleep(5)
        (answer,) = await office.discovery.ask(Ping(), Target("ledger"), window=1, expected=1)
        assert answer.record.flooded
        await asyncio.sleep(61)
        (answer,) = await office.discovery.ask(Ping(), Target("ledger"), window=1, expected=1)
        assert not answer.record.flooded

    run()
