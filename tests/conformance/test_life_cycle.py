"""Tests of the life cycle of a bus on every transport."""

from bus.runtime.bus import Bus
from bus.runtime.router import Router
from bus.settings import Settings
from tests.conformance.contracts import Ask, Word
from tests.conformance.world import World


async def test_a_bus_is_entered_again_after_it_was_closed(world: World) -> None:
    router, settings = Router("desk"), Settings()

    @router.request(Ask)
    async def ask(request: Ask) -> Word:
        return Word(text=f"so {request.text}")

    transport = await world.new_transport("desk", settings)
    bus = Bus("desk", settings=settings, transport=transport, clock=world.clock)
    for text in ("be it", "it was"):
        async with bus, bus.serving(router):
            assert bus.ready
            assert await bus.request(Ask(text=text), timeout=30) == Word(text=f"so {text}")
        assert not bus.ready
