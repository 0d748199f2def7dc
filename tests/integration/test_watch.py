"""Tests of `bus watch` on a real RabbitMQ: the tap must not change the fate of any message."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from pydantic import SecretStr

from bus import Bus, Event, Job, NotServed, Request, Router, Settings, contract
from bus.cli.watch import session
from bus.cli.watch.commands import Display, run_watch
from bus.cli.watch.lines import Seen
from bus.cli.watch.session import Watch, WatchOptions
from bus.cli.watch.signatures import NoKeys
from bus.contracts.contract import contract_of
from bus.errors import DeadlineExceeded, PermissionDenied
from bus.operations.brokers.broker import Broker
from bus.operations.management_api import Management
from bus.operations.topology.broker_state import queue_bindings
from bus.security.grants import Grants, ServiceGrants
from bus.transports.rabbitmq import tap as tap_module
from bus.transports.rabbitmq.tap import TAP_PREFIX, Tap, TappedMessage, open_tap
from tests.broker import management_url
from tests.integration.broker_users import place_for
from tests.integration.command import ended, running
from tests.polling import until

SECRET = "Eleonora Quist"


@contract("atelier.print", version=1)
class Print(Job[None]):
    title: str


@contract("atelier.stop", version=1)
class Stop(Job[None]):
    """A job that no service handles."""


@contract("atelier.ask", version=1, idempotent=True)
class Ask(Request[None]):
    """A request that no service handles."""


@contract("atelier.find", version=1, idempotent=True)
class Find(Request[None]):
    title: str


@contract("atelier.printed", version=1)
class Printed(Event):
    title: str


router = Router("atelier")


@router.job(Print)
async def print_(_job: Print) -> None:
    """Do nothing."""


@router.request(Find)
async def find(_request: Find) -> None:
    """Do nothing."""


@pytest.fixture
def settings(vhost_url: str, shared_broker: Broker) -> Settings:
    return Settings(
        url=SecretStr(vhost_url),
        management_url=SecretStr(management_url(shared_broker)),
        auth="off",
    )


class Watching:
    """A running watch, with the messages that it received and its sentences."""

    def __init__(self, settings: Settings) -> None:
        self.seen: list[TappedMessage] = []
        self.said: list[str] = []
        self.stop = asyncio.Event()
        self.watch = Watch(settings, WatchOptions(), self.seen.append, self.said.append)

    @property
    def types(self) -> list[str]:
        return [message.envelope.type for message in self.seen]


@asynccontextmanager
async def watching(settings: Settings) -> AsyncIterator[Watching]:
    running_ = Watching(settings)
    task = asyncio.create_task(running_.watch.run(running_.stop))
    try:
        await until(lambda: running_.said or task.done(), "the start of the watch")
        yield running_
    finally:
        running_.stop.set()
        await task


async def test_a_watched_message_is_shown_and_handled(settings: Settings) -> None:
    async with (
        Bus("atelier", settings=settings) as bus,
        bus.serving(router),
        watching(settings) as watched,
    ):
        await bus.request(Find(title=SECRET))
        await bus.publish(Printed(title=SECRET))
        await until(lambda: len(watched.seen) == 2, "both messages")
    assert watched.types == ["atelier.find.v1", "atelier.printed.v1"]
    assert {message.envelope.body for message in watched.seen} == {b""}  # not even kept
    assert {message.size for message in watched.seen} == {len(f'{{"title":"{SECRET}"}}')}


async def test_a_watch_does_not_accept_the_messages_of_a_service_that_is_away(
    settings: Settings,
) -> None:
    async with (
        Bus("atelier", settings=settings) as bus,
        bus.serving(router),
        watching(settings) as watched,
    ):
        with pytest.raises(NotServed):
            await bus.submit(Stop())
        with pytest.raises(NotServed):
            await bus.request(Ask())
        assert watched.seen == []


async def test_a_job_is_refused_if_its_queue_is_deleted_during_a_watch(settings: Settings) -> None:
    async with Bus("atelier", settings=settings) as bus:
        async with bus.serving(router):
            pass
        async with watching(settings) as watched:
            await delete(settings, "atelier.jobs.print.v1")
            with pytest.raises(NotServed):
                await bus.submit(Print(title=SECRET))
            assert watched.seen == []


async def test_a_watch_leaves_the_requests_of_a_queue_that_is_deleted(settings: Settings) -> None:
    async with Bus("atelier", settings=settings) as bus:
        async with bus.serving(router):
            pass
        async with watching(settings):
            await delete(settings, "atelier.requests.find.v1")

            while not await is_refused(bus):
                pass  # each request waits for its timeout


async def is_refused(bus: Bus) -> bool:
    """Return True if the broker returns a request. Return False if no service replies in time."""
    try:
        await bus.request(Find(title=SECRET), timeout=0.2)
    except NotServed:
        return True
    except DeadlineExceeded:
        return False
    raise AssertionError("the request was answered, although no service runs")


async def delete(settings: Settings, queue: str) -> None:
    """Delete a queue, as an operator does in the management UI."""
    assert settings.management_url
    api = Management(settings.management_url.get_secret_value(), settings.address)
    await api.call("DELETE", f"queues/{settings.address.rpartition('/')[2]}/{queue}")


async def test_a_full_tap_drops_the_oldest_messages_and_counts_them(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tap_module, "MAX_READY", 5)
    monkeypatch.setattr(tap_module, "PREFETCH", 1)
    resumed, take = asyncio.Event(), Tap._take

    async def hang(self: Tap, message: object) -> None:
        await resumed.wait()
        await take(self, message)  # type: ignore[arg-type]

    monkeypatch.setattr(Tap, "_take", hang)
    async with Bus("atelier", settings=settings) as bus, watching(settings) as watched:
        for number in range(20):
            await bus.publish(Printed(title=f"{number}"))
        await until(lambda: watched.watch.missed == 14, "the count of the dropped messages")
        resumed.set()
        await until(lambda: len(watched.seen) == 6, "the messages that were kept")
    assert watched.said[1:] == ["the tap was full: 14 messages missed"]


async def test_the_queues_of_a_tap_end_with_its_connection(settings: Settings) -> None:
    async with Bus("atelier", settings=settings):
        async with open_tap(settings, lambda _: None, max_body_bytes=0) as tap:
            await tap.bind([("bus.events", "#")])
            bound = await queue_bindings(settings)
            assert any(binding.queue.startswith(TAP_PREFIX) for binding in bound)
        bound = await queue_bindings(settings)
        assert not any(binding.queue.startswith(TAP_PREFIX) for binding in bound)


async def test_the_broker_user_of_a_service_may_not_tap(
    shared_broker: Broker, vhost_url: str
) -> None:
    grants = Grants({"atelier": ServiceGrants()})
    contracts = [contract_of(Print), contract_of(Printed)]
    async with place_for(shared_broker, vhost_url, [router], grants, contracts) as place:
        with pytest.raises(PermissionDenied, match=r"may not tap messages .*bus\.topology"):
            async with open_tap(place.settings("atelier"), lambda _: None, max_body_bytes=0):
                pass
        administrator = place.settings("bus.topology")
        async with open_tap(administrator, lambda _: None, max_body_bytes=0) as tap:
            await tap.bind([("bus.events", "#"), ("bus.requests", "atelier.find.v1")])


async def test_the_command_prints_json_until_its_limit(settings: Settings) -> None:
    async with Bus("atelier", settings=settings) as bus:
        environment = {"BUS_URL": settings.address, "BUS_AUTH": "off"}
        arguments = ("watch", "atelier.#", "--kind", "event", "--limit", "2", "--json", "--reveal")
        async with running(*arguments, **environment) as process:
            assert process.stderr is not None
            while b"watching all events" not in await process.stderr.readline():
                pass
            for title in ("Emma", "Sand"):
                await bus.publish(Printed(title=title))
            done = await ended(process)
    lines = [json.loads(each) for each in done.out.splitlines()]
    assert [each["body"] for each in lines] == [
        "eyJ0aXRsZSI6IkVtbWEifQ==",
        "eyJ0aXRsZSI6IlNhbmQifQ==",
    ]
    assert (done.code, {each["signature"] for each in lines}) == (0, {"unsigned"})
    assert done.err.count("payload revealed") == 2
    assert "2 messages, none missed" in done.err


async def test_a_watch_continues_after_a_lost_connection_and_reports_the_gap(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "CHECK_INTERVAL_SECONDS", 0.1)
    monkeypatch.setattr(session, "RECONNECT_SECONDS", 0.1)
    taps, start = list[Tap](), Tap.start

    async def record(self: Tap) -> None:
        taps.append(self)
        await start(self)

    monkeypatch.setattr(Tap, "start", record)
    async with Bus("atelier", settings=settings) as bus, watching(settings) as watched:
        await taps[0]._channel.close()
        await until(lambda: len(taps) == 2, "another tap")
        while not watched.seen:
            await bus.publish(Printed(title="Emma"))
            await asyncio.sleep(0.02)
    assert watched.watch.has_gap
    assert [text.startswith("the connection was lost") for text in watched.said] == [False, True]


async def test_the_command_ends_after_its_time(
    settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    shown: list[Seen] = []
    display = Display(check=NoKeys(), show=shown.append, cipher=None)
    async with Bus("atelier", settings=settings):
        await run_watch(settings, WatchOptions(), display, limit=None, seconds=0.1)
    assert shown == []
    assert capsys.readouterr().err.endswith("0 messages, none missed\n")
