"""Tests of the control channel on a real broker, with and without the right to use it."""

import asyncio
import logging
import os
import shlex
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import aio_pika
import pytest
from pydantic import SecretStr

from bus import Bus, DeadlineExceeded, PermissionDenied, Router, Settings, Unavailable
from bus.cli.contract_usage import ask_usage
from bus.cli.services.commands import ask
from bus.cli.wait import wait_until_ready
from bus.contracts.contract import contract_of
from bus.messaging.control import GetInfo, Ping, Target
from bus.messaging.topology.names import CONTROL
from bus.operations.brokers.broker import Broker
from bus.runtime.discovery.open_asker import open_asker
from bus.runtime.discovery.service_wait import Requirement
from bus.security.grants import Grants, ServiceGrants
from bus.security.key_directory import KeyDirectory
from bus.transports.faststream import FastStreamTransport, broker_of_its_own
from bus.transports.rabbitmq import control_channel
from tests.integration.broker_users import Place, place_for
from tests.integration.command import ROOT, bus
from tests.polling import until
from tests.unit.ledger import GetTotal, Total

pytestmark = pytest.mark.timeout(60)

ledger = Router("ledger")
OFF_LINE = "discovery is off, because the broker refused the control channel"


@ledger.request(GetTotal)
async def total(request: GetTotal) -> Total:
    return Total(total=len(request.account))


def settings_of(url: str, **others: object) -> Settings:
    # pydantic validates the other settings.
    return Settings(url=SecretStr(url), **{"auth": "off", **others})  # type: ignore[arg-type]


def plain_bus(service: str, settings: Settings) -> Bus:
    return Bus(service, settings=settings)


def faststream_bus(service: str, settings: Settings) -> Bus:
    broker = broker_of_its_own(settings, name=service)
    transport = FastStreamTransport(broker, settings=settings, name=service, own=True)
    return Bus(service, settings=settings, transport=transport)


@pytest.mark.parametrize(
    ("create", "fastlane"),
    [(plain_bus, True), (plain_bus, False), (faststream_bus, True)],
    ids=["fast lane", "aio-pika", "FastStream"],
)
async def test_live_instances_answer_and_announce_their_start_and_stop(
    vhost_url: str, create: Callable[[str, Settings], Bus], fastlane: bool
) -> None:
    settings = settings_of(vhost_url, fastlane=fastlane)
    async with create("office", settings) as office, open_asker(settings) as asker:
        heard = asker.announcements()
        await asyncio.wait_for(asyncio.shield(heard._opening), 10)  # type: ignore[attr-defined]
        async with create("ledger", settings) as books:
            async with books.serving(ledger):
                started = await asyncio.wait_for(anext(heard), 10)
                answers = await office.discovery.ask(Ping(), window=10, expected=2)
                (info,) = await asker.ask(GetInfo(), Target("ledger"), window=10, expected=1)
            stopping = await asyncio.wait_for(anext(heard), 10)
    assert {each.record.instance for each in answers} == {office.instance, books.instance}
    assert info.record.service == "ledger"
    assert (started.event, stopping.event) == ("started", "stopping")
    assert started.instance == stopping.instance == books.instance


async def test_answers_arrive_again_after_the_connection_was_lost(vhost_url: str) -> None:
    settings = settings_of(vhost_url)
    async with Bus("office", settings=settings) as office:
        office._transport._rpc.lane.transport.abort()  # type: ignore[attr-defined]
        await until(lambda: not office.ready, "the loss of the connection", poll=0.001)
        await until(lambda: office.ready, "the connection")
        answers = await office.discovery.ask(Ping(), window=10, expected=1)
        assert [each.record.instance for each in answers] == [office.instance]


# --- Broker users with and without the right ---


GRANTS = Grants(
    {
        "ledger": ServiceGrants(),
        "auditor": ServiceGrants(control=frozenset({"read"})),
        "guest": ServiceGrants(call=frozenset({contract_of(GetTotal).permission})),
    }
)
Open = Callable[..., AbstractAsyncContextManager[Bus]]


@pytest.fixture
async def place(shared_broker: Broker, vhost_url: str) -> AsyncIterator[Place]:
    contracts = [contract_of(GetTotal)]
    async with place_for(shared_broker, vhost_url, [ledger], GRANTS, contracts) as made:
        yield made


async def test_a_broker_user_asks_hears_and_answers_within_its_grants(place: Place) -> None:
    async with (
        place.bus("ledger", auth="off") as books,
        place.bus("auditor", auth="off") as auditor,
        place.bus("guest", auth="off") as guest,
        books.serving(ledger),
    ):
        answers = await auditor.discovery.ask(Ping(), window=10, expected=3)
        assert {each.record.service for each in answers} == {"ledger", "auditor", "guest"}
        alive = await guest.discovery.ask(Ping(), Target("ledger"), window=10, expected=1)
        assert [each.record.instance for each in alive] == [books.instance]
        with pytest.raises(PermissionDenied, match=r"ask\.all"):
            await guest.discovery.ask(Ping(), window=10)
        with pytest.raises(Unavailable, match="access to topic"):
            await anext(guest.discovery.announcements())
        assert guest.ready
        await guest.request(GetTotal(), timeout=10)


FILE = """
clients = ["auditor", "guest"]
[services.ledger]
[services.auditor]
control = ["read"]
[services.guest]
call = ["ledger.total"]
"""


@pytest.fixture
def keys(tmp_path: Path) -> Callable[[str], dict[str, str]]:
    """Return a function that returns the settings of a service with its own key."""
    directory = KeyDirectory(tmp_path / "keys")
    for name in ("ledger", "auditor", "guest"):
        directory.new(name, f"{name}-1")
    (tmp_path / "grants.toml").write_text(FILE)

    def settings(service: str) -> dict[str, str]:
        return {
            "auth": "on",
            "key": str(directory.key_file(service)),
            "jwks": str(directory.set_file),
            "grants": str(tmp_path / "grants.toml"),
        }

    return settings


async def test_a_container_waits_for_a_service_with_its_own_key_and_broker_user_only(
    place: Place, keys: Callable[[str], dict[str, str]]
) -> None:
    def environment(service: str) -> dict[str, str]:
        known = {"url": place.address(service), "topology": "verify", **keys(service)}
        return {f"BUS_{name.upper()}": value for name, value in known.items()}

    command = shlex.join((sys.executable, "-m", "bus.cli", "wait", "ledger"))
    async with place.bus("ledger", **keys("ledger")) as books, books.serving(ledger):
        container = await asyncio.create_subprocess_exec(
            *("sh", "-c", f"{command} && exec echo my-program"),
            env={**os.environ, **environment("guest")},
            cwd=ROOT,
            stdout=asyncio.subprocess.PIPE,
        )
        (out, _), denied = await asyncio.gather(
            asyncio.wait_for(container.communicate(), 40),
            bus("wait", "ledger.total.v1", **environment("guest")),
        )
    assert out == b"ledger is ready: 1 instance\nmy-program\n"
    assert denied.code == os.EX_NOPERM
    assert '[services.guest] control = ["read"]' in denied.err
    assert "`bus wait ledger`" in denied.err


async def test_commands_with_the_key_of_a_service_that_may_read_ask_everything(
    place: Place, keys: Callable[[str], dict[str, str]]
) -> None:
    settings = place.settings("auditor", **keys("auditor"))
    async with place.bus("ledger", **keys("ledger")) as books, books.serving(ledger):
        await wait_until_ready(settings, Requirement.parse("ledger.total.v1"), 20)
        answered = await ask(settings, None, window=1, as_service=None)
        used = await ask_usage(settings, (), window=1)
    assert [(each.name, len(each.live)) for each in answered.services] == [("ledger", 1)]
    assert [each.type for each in used.contracts if each.servers] == ["ledger.total.v1"]


async def test_without_keys_a_command_needs_the_name_of_the_service_of_its_broker_user(
    place: Place,
) -> None:
    settings = place.settings("guest", auth="off")
    async with place.bus("ledger", auth="off") as books, books.serving(ledger):
        await wait_until_ready(settings, Requirement.parse("ledger"), 20, as_service="guest")
        with pytest.raises(DeadlineExceeded, match="Pass --as SERVICE"):
            await wait_until_ready(settings, Requirement.parse("ledger"), 1)


@asynccontextmanager
async def without_exchange(place: Place) -> AsyncIterator[None]:
    connection = await aio_pika.connect(place.url)
    async with connection, connection.channel() as channel:
        await channel.exchange_delete(CONTROL)
        yield


async def test_without_the_exchange_a_service_is_ready_and_says_once_that_discovery_is_off(
    place: Place, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(control_channel, "REFUSED_RETRY_SECONDS", 0.1)
    caplog.set_level(logging.INFO)
    tried = count_attempts(monkeypatch)
    async with (
        without_exchange(place),
        place.bus("ledger", auth="off") as books,
        books.serving(ledger),
    ):
        assert books.ready
        with pytest.raises(Unavailable, match=r"exchange bus\.control.*`bus topology export`\."):
            await books.discovery.ask(Ping())
        await until(lambda: len(tried) > 2, "further attempts")
        lines = [each for each in caplog.records if "control" in each.getMessage()]
        (line,) = [each for each in lines if OFF_LINE in each.getMessage()]
        assert line.levelname == "WARNING"
        assert "`bus topology export`" in line.getMessage()
        assert lines == [line]
        await create_exchange(place)
        await until(lambda: books.discovery._link.ready, "the control channel")  # type: ignore[attr-defined]
        async with open_asker(settings_of(place.url)) as asker:
            assert len(await asker.ask(Ping(), Target("ledger"), window=10, expected=1)) == 1
        assert "discovery is on again" in caplog.text


def count_attempts(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    tried: list[float] = []
    wait = control_channel.ControlConsumer._step

    async def counted(self: control_channel.ControlConsumer) -> None:
        tried.append(0)
        await wait(self)

    monkeypatch.setattr(control_channel.ControlConsumer, "_step", counted)
    return tried


async def create_exchange(place: Place) -> None:
    connection = await aio_pika.connect(place.url)
    async with connection, connection.channel() as channel:
        await channel.declare_exchange(CONTROL, "topic", durable=True)


async def test_a_user_of_earlier_permissions_is_ready_and_its_requests_are_not_disturbed(
    place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    path = f"permissions/{place.vhost}/ledger"
    held = (await place.api.call("GET", path)) or {}
    old = {name: str(held[name]).replace(r"|bus\.control", "") for name in ("write", "read")}
    old = {name: text.replace(r"bus\.control|", "") for name, text in old.items()}
    await place.api.call("PUT", path, {"configure": held["configure"], **old})
    async with place.bus("ledger", auth="off") as books, books.serving(ledger):
        await until(lambda: OFF_LINE in caplog.text, "the line")
        assert books.ready
        async with place.bus("guest", auth="off") as guest:
            assert (await guest.request(GetTotal(account="abc"), timeout=10)).total == 3
    assert caplog.text.count(OFF_LINE) == 1
