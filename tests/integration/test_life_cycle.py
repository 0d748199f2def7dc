"""Tests of a bus that lives twice, and of a service that starts often, on a real broker."""

import asyncio

import pytest
from pydantic import SecretStr

from bus import Bus, Event, Router, Settings, contract
from bus.messaging.ports.transport import Delivery
from bus.runtime.consumer_cancellation import AckHold
from bus.runtime.receiver import Receiver
from tests.integration.slow_service import WhoAreYou, router
from tests.polling import until


@contract("oven.baked", version=1)
class Baked(Event):
    """A loaf was baked."""

    number: int


def test_a_bus_is_entered_again_in_another_event_loop(vhost_url: str) -> None:
    bus = Bus(router.name, settings=Settings(url=SecretStr(vhost_url), auth="off"))

    async def ask() -> int:
        async with bus, bus.serving(router):
            return (await bus.request(WhoAreYou(), timeout=30)).process

    assert asyncio.run(ask()) == asyncio.run(ask())


async def test_a_service_that_starts_while_many_messages_wait_costs_none_of_them_a_delivery(
    vhost_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    handled, again, shop = list[int](), list[object](), Router("shop")
    original = Receiver.on_delivery

    def on_delivery(self: Receiver, delivery: Delivery, hold: AckHold | None = None) -> None:
        if delivery.redelivered:
            again.append(delivery.broker_headers.get("x-delivery-count"))
        original(self, delivery, hold)

    monkeypatch.setattr(Receiver, "on_delivery", on_delivery)

    @shop.event(Baked, concurrency=4)
    async def sell(event: Baked) -> None:
        handled.append(event.number)

    settings = Settings(url=SecretStr(vhost_url), auth="off")
    async with Bus("shop", settings=settings) as server, Bus("oven", settings=settings) as oven:
        async with server.serving(shop):  # declares the queue
            pass
        for start in range(4):  # at each start another consumer replaces the first one
            loaves = range(start * 40, start * 40 + 40)
            await asyncio.gather(*(oven.publish(Baked(number=number)) for number in loaves))
            async with server.serving(shop):
                await until(lambda: len(handled) == loaves.stop, "all messages")  # noqa: B023
    assert again == []
    assert sorted(handled) == [*range(160)]
