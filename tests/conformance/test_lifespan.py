"""Tests of lifespans that publish, on every transport."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from bus.runtime.bus import Bus
from bus.runtime.router import Router
from tests.conformance.contracts import Ask, Told, Word
from tests.conformance.world import World, until


async def test_a_lifespan_publishes_before_the_first_message_and_after_the_last(
    world: World,
) -> None:
    heard: list[str] = []
    notes: list[str] = []

    @asynccontextmanager
    async def lifespan(bus: Bus) -> AsyncIterator[None]:
        await bus.publish(Told(text="desk opens"), timeout=20)
        yield
        notes.append("the last message is handled")
        await bus.publish(Told(text="desk closes"), timeout=20)
        notes.append("the bus is still connected")

    desk, shop = await world.bus("desk"), await world.bus("shop")
    listening, router = Router("shop"), Router("desk", lifespan=lifespan)

    @listening.event(Told)
    async def told(event: Told) -> None:
        heard.append(event.text)

    @router.request(Ask)
    async def ask(request: Ask) -> Word:
        notes.append("handled")
        return Word(text=request.text)

    await world.serve(shop, listening)
    async with desk.serving(router):
        await until(lambda: heard == ["desk opens"], "the event of the start")
        await shop.request(Ask(text="a"), timeout=20)
    await until(lambda: heard == ["desk opens", "desk closes"], "the event of the stop")
    assert notes == ["handled", "the last message is handled", "the bus is still connected"]
