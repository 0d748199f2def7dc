"""Tests of lifespans that publish, on every transport."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from bus.errors import NotServed
from bus.runtime.bus import Bus
from bus.runtime.router import Router
from tests.conformance.contracts import Ask, Told, Word, Write
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


async def test_a_lifespan_submits_jobs_and_publishes_events_to_its_own_service(
    world: World,
) -> None:
    heard: list[str] = []

    @asynccontextmanager
    async def lifespan(bus: Bus) -> AsyncIterator[None]:
        await bus.submit(Write(text="job"), timeout=20)
        await bus.publish(Told(text="event"), timeout=20)
        assert heard == [], "no handler runs before the lifespan has begun"
        yield

    desk, router = await world.bus("desk"), Router("desk", lifespan=lifespan)

    @router.job(Write)
    async def write(job: Write) -> Word:
        heard.append(job.text)
        return Word(text=job.text)

    @router.event(Told)
    async def told(event: Told) -> None:
        heard.append(event.text)

    async with desk.serving(router):
        await until(lambda: sorted(heard) == ["event", "job"], "the messages of the lifespan")


async def test_a_request_is_not_served_while_the_lifespan_of_the_first_worker_begins(
    world: World,
) -> None:
    shop = await world.bus("shop")

    @asynccontextmanager
    async def lifespan(bus: Bus) -> AsyncIterator[None]:
        with pytest.raises(NotServed):
            await shop.request(Ask(), timeout=20)
        yield

    desk, router = await world.bus("desk"), Router("desk", lifespan=lifespan)

    @router.request(Ask)
    async def ask(request: Ask) -> Word:
        return Word(text=request.text)

    async with desk.serving(router):
        await shop.request(Ask(text="a"), timeout=20)
