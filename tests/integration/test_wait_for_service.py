"""A request that waits for its service hears the announcement of the start on RabbitMQ."""

import asyncio

import pytest
from pydantic import SecretStr

from bus import Bus, Settings
from bus.runtime import service_waits, start_listener
from bus.runtime.discovery.discovery import Discovery
from tests.integration.library_service import FindBook, router
from tests.polling import until


async def test_a_service_that_announces_its_start_is_called_at_once(
    vhost_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The request is published again only after an announcement.
    monkeypatch.setattr(service_waits, "FIRST_SECONDS", 1000)
    monkeypatch.setattr(service_waits, "MAX_SECONDS", 1000)
    monkeypatch.setattr(start_listener, "LISTEN_AFTER_SECONDS", 0)
    settings = Settings(url=SecretStr(vhost_url), stop_grace=0)
    async with Bus("desk", settings=settings) as desk, Bus("library", settings=settings) as library:
        discovery = desk.discovery
        assert isinstance(discovery, Discovery)

        def listens() -> bool:
            return any(stream._link.ready for stream in discovery.asker._streams)

        waiting = asyncio.create_task(
            desk.request(FindBook(title="Emma"), timeout=60, wait_for_service=True)
        )
        await until(listens, "the queue of announcements")
        async with library.serving(router):
            assert (await waiting).shelf.startswith("A3")
