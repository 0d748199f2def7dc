"""`bus contracts usage` on RabbitMQ: one command finds the service that still sends version 1."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from pydantic import SecretStr

from bus import Bus, Catalog, NotServed, Request, Settings, contract
from bus.cli.contract_usage import ask_usage, load_catalog, usage_to_json
from tests.integration.command import bus
from tests.integration.library_service import FindBook, Place, router

CONTRACTS = "tests.integration.library_service"


@contract("library.find", version=2, catalog=Catalog())
class FindBookNewly(Request[Place]):
    title: str


@pytest.fixture
async def used(vhost_url: str) -> AsyncIterator[str]:
    """Let an old and a new service call the library, and yield the broker's URL."""
    settings = Settings(url=SecretStr(vhost_url), stop_grace=0)
    async with (
        Bus("library", settings=settings) as library,
        library.serving(router),
        Bus("old-desk", settings=settings) as old,
        Bus("new-desk", settings=settings) as new,
    ):
        for _ in range(3):
            await old.request(FindBook(title="Emma"))
        with pytest.raises(NotServed):
            await new.request(FindBookNewly(title="Emma"))
        yield vhost_url


async def test_one_command_finds_the_senders_of_each_version(used: str) -> None:
    arguments = ("contracts", "usage", "library.find")
    settings = Settings(url=SecretStr(used))
    shown, report = await asyncio.gather(
        bus(*arguments, BUS_URL=used, BUS_CONTRACTS=CONTRACTS),
        ask_usage(settings, load_catalog([CONTRACTS]), window=1),
    )
    assert (shown.code, shown.err) == (0, "")
    # Only the owner, or a loaded contract, decides that version 2 is the latest one.
    assert "old version" not in shown.out
    assert "counted by 3 instances of 3 services, the first (library) since " in shown.out
    found = {each["type"]: each for each in usage_to_json(report)["contracts"]}
    old, new, unused = (found[f"library.{each}"] for each in ("find.v1", "find.v2", "scanned.v1"))
    assert [(each["service"], each["instances"]) for each in old["servers"]] == [("library", 1)]
    assert [(each["service"], each["sent"], each["handled"]) for each in old["callers"]] == [
        ("old-desk", 3, 3)
    ]
    assert [(each["service"], each["sent"]) for each in new["callers"]] == [("new-desk", 1)]
    assert not new["servers"]
    assert not unused["used"]
