"""Tests of the test kit."""

import asyncio

import pytest

from bus.errors import ConnectionLost
from bus.runtime.router import Router
from bus.testing import MemoryBuses, VirtualLoop, wall_clock
from tests.conformance.contracts import Ask, Told, Word
from tests.conformance.world import until


async def test_buses_in_memory_talk_to_each_other() -> None:
    heard: list[str] = []
    router = Router("desk")

    @router.request(Ask)
    async def ask(request: Ask) -> Word:
        return Word(text=request.text)

    @router.event(Told)
    async def told(event: Told) -> None:
        heard.append(event.text)

    async with MemoryBuses() as buses:
        desk, client = await buses.bus("desk"), await buses.bus("client", request_timeout=2)
        await buses.serve(desk, router)
        assert await client.request(Ask(text="here")) == Word(text="here")
        await desk.publish(Told(text="all"))
        await until(lambda: heard == ["all"], "the event")


async def test_a_test_can_take_a_services_broker_away() -> None:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualLoop)
    loop.skip_waits()
    started, router = [], Router("desk")

    @router.request(Ask)
    async def ask(request: Ask) -> Word:
        started.append(request)
        await asyncio.sleep(3600)
        return Word(text="")

    async with MemoryBuses(clock=wall_clock) as buses:
        desk, client = await buses.bus("desk", stop_grace=0), await buses.bus("client")
        await buses.serve(desk, router)
        asking = asyncio.create_task(client.request(Ask(), timeout=7200))
        await until(lambda: started, "the request to be handled")
        buses.broker.drop_all()
        with pytest.raises(ConnectionLost):
            await asking
