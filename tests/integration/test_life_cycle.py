"""Tests of a bus that lives twice, on a real broker."""

import asyncio

from pydantic import SecretStr

from bus import Bus, Settings
from tests.integration.slow_service import WhoAreYou, router


def test_a_bus_is_entered_again_in_another_event_loop(vhost_url: str) -> None:
    bus = Bus(router.name, settings=Settings(url=SecretStr(vhost_url), auth="off"))

    async def ask() -> int:
        async with bus, bus.serving(router):
            return (await bus.request(WhoAreYou(), timeout=30)).process

    assert asyncio.run(ask()) == asyncio.run(ask())
