"""Tests of the fast lane on a real broker: lost connections, TLS, load and alarms."""

import asyncio
import os
import random
import secrets
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import pytest
from pydantic import SecretStr

from bus import (
    Bus,
    BusError,
    DeadlineExceeded,
    Event,
    Message,
    Request,
    Router,
    Settings,
    Unavailable,
    contract,
)
from bus.operations.brokers.installation import Installation
from bus.operations.brokers.ports import LOOPBACK, free_ports
from bus.operations.brokers.private_node import PrivateNode
from bus.transports.rabbitmq import RabbitMQTransport
from bus.transports.rabbitmq.fastlane.protocol import FastLaneProtocol
from tests.broker import raise_alarm, set_watermark
from tests.conformance.proxy import Proxy
from tests.integration.certificates import Certificates, certificates
from tests.polling import until

CUTS = 50
CALL_DEADLINE = 3.0
MANY = 50_000
IN_FLIGHT = 200
HOT = 15.0
"""Seconds with hot frames only, at a heartbeat of 2 s.

aiormq closes a connection after 3 * (heartbeat + 1) seconds without a frame.
"""
MIB = 1024 * 1024
SIZES = [0, 300_000, 2 * MIB]
"""Bytes of an empty body, of more than one frame (RabbitMQ agrees to 131,072), and many frames."""


class Word(Message):
    text: str


@contract("fastlane.ask", version=1)
class Ask(Request[Word]):
    text: str = ""


@contract("fastlane.hush", version=1)
class Hush(Request[None]):
    text: str = ""


@contract("fastlane.wait", version=1)
class Wait(Request[None]):
    """A request that is never answered."""


@contract("fastlane.told", version=1)
class Told(Event):
    number: int
    text: str = ""


@dataclass
class Desk:
    """A service that answers requests and records events."""

    told: dict[int, int] = field(default_factory=dict)
    texts: list[str] = field(default_factory=list)
    waiting: int = 0
    gate: asyncio.Event = field(default_factory=asyncio.Event)

    def router(self, concurrency: int = 200) -> Router:
        router = Router("fastlane")

        @router.request(Ask)
        async def ask(request: Ask) -> Word:
            return Word(text=request.text)

        @router.request(Hush)
        async def hush(request: Hush) -> None:
            self.texts.append(request.text)

        @router.request(Wait)
        async def wait(request: Wait) -> None:
            self.waiting += 1
            await asyncio.Event().wait()

        @router.event(Told, concurrency=concurrency)
        async def told(event: Told) -> None:
            await self.gate.wait()
            self.told[event.number] = self.told.get(event.number, 0) + 1
            if event.text:
                self.texts.append(event.text)

        self.gate.set()
        return router


class Way(Proxy):
    """A proxy that can also cut a single connection, and stop relaying without closing."""

    def __len__(self) -> int:
        return len(self._pipes)

    def cut_one(self, chance: random.Random) -> None:
        pipes = sorted(self._pipes, key=id)
        if pipes:
            chance.choice(pipes).cut()

    def freeze(self) -> None:
        """Stop relaying on the open connections in both directions, without closing them.

        New connections are relayed.
        """
        for pipe in self._pipes:
            pipe.transport.pause_reading()
            if pipe.far.transport is not None:
                pipe.far.transport.pause_reading()


@asynccontextmanager
async def way_to(url: str) -> AsyncIterator[tuple[Way, str]]:
    """Open a proxy, and return it with the broker's URL through it."""
    parts = urlsplit(url)
    way = Way(parts.hostname or "localhost", parts.port or 5672)
    await way.open()
    try:
        yield (
            way,
            urlunsplit(
                parts._replace(netloc=f"{parts.netloc.rpartition('@')[0]}@{LOOPBACK}:{way.port}")
            ),
        )
    finally:
        await way.close()


def lanes_of(bus: Bus) -> list[FastLaneProtocol]:
    """Return the fast lanes of a bus, one for each of its three connections."""
    assert isinstance(bus._transport, RabbitMQTransport)
    lanes = [link.lane for link in bus._transport._links]
    return [lane for lane in lanes if lane is not None]


def resident() -> int:
    """Return the resident memory of this process in bytes."""
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * os.sysconf(
        "SC_PAGE_SIZE"
    )


# --- Lost connections ---


@dataclass
class Load:
    """Running publishers and callers, and their outcomes."""

    client: Bus
    confirmed: list[int] = field(default_factory=list)
    unsure: int = 0
    answers: int = 0
    errors: int = 0
    longest: float = 0
    over: bool = False
    _number: int = 0

    async def publish(self) -> None:
        while not self.over:
            self._number += 1
            number = self._number
            try:
                await self.client.publish(Told(number=number), timeout=CALL_DEADLINE)
            except BusError:
                self.unsure += 1
            else:
                self.confirmed.append(number)

    async def call(self) -> None:
        while not self.over:
            began = time.monotonic()
            try:
                assert await self.client.request(
                    Ask(text=str(began)), timeout=CALL_DEADLINE
                ) == Word(text=str(began))
                self.answers += 1
            except BusError:
                self.errors += 1
                await asyncio.sleep(0)  # a call that fails at once must let other tasks run
            finally:
                self.longest = max(self.longest, time.monotonic() - began)


async def test_fifty_lost_connections_under_load_lose_no_confirmed_message_and_leave_nobody_waiting(
    vhost_url: str,
) -> None:
    seed = secrets.randbits(32)
    print(f"seed {seed}")  # noqa: T201 - pytest shows it when the test fails
    chance, desk = random.Random(seed), Desk()
    async with way_to(vhost_url) as (near, near_url), way_to(vhost_url) as (far, far_url):
        serving = Bus("fastlane", settings=Settings(url=SecretStr(far_url)))
        client = Bus("fastlane", settings=Settings(url=SecretStr(near_url)))
        async with serving, serving.serving(desk.router()), client:
            load, began = Load(client), time.monotonic()
            tasks = [asyncio.create_task(work()) for work in [load.publish] * 8 + [load.call] * 8]
            for number in range(CUTS):
                way = chance.choice([near, far])
                await until(lambda way=way: len(way), "a connection to cut")  # type: ignore[misc]
                await asyncio.sleep(chance.uniform(0, 0.4))  # cut at a random time
                if number % 5:
                    way.cut_one(chance)
                else:
                    way.cut()
            load.over = True
            _, hanging = await asyncio.wait(tasks, timeout=CALL_DEADLINE + 1)
            assert not hanging, f"{len(hanging)} callers wait beyond their deadline"
            await asyncio.gather(*tasks)
            await until(lambda: serving.ready and client.ready, "the consumers to be back")
            await until(
                lambda: desk.told.keys() >= {*load.confirmed},
                "each confirmed message to be consumed",
            )
            assert await client.request(Ask(text="still there"), timeout=40) == Word(
                text="still there"
            )
            twice = sum(count > 1 for count in desk.told.values())
            print(  # noqa: T201 - pytest shows it when the test fails, or with -s
                f"{time.monotonic() - began:.1f} s;"
                f" {len(load.confirmed)} confirmed, {load.unsure} not, {twice} consumed again;"
                f" {load.answers} answers, {load.errors} errors,"
                f" the longest call {load.longest:.2f} s"
            )
    assert load.longest < CALL_DEADLINE + 1
    assert load.confirmed
    assert load.answers


async def test_connections_stay_while_only_hot_frames_come_for_many_heartbeats(
    vhost_url: str,
) -> None:
    desk, settings = Desk(), Settings(url=SecretStr(vhost_url), heartbeat=2)
    async with Bus("fastlane", settings=settings) as bus, bus.serving(desk.router()):
        lanes, sent = lanes_of(bus), 0
        assert len(lanes) == 3
        ends = time.monotonic() + HOT
        while time.monotonic() < ends:
            await bus.publish(Told(number=sent), timeout=5)
            await bus.request(Ask(text="hot"), timeout=5)
            sent += 1
            await asyncio.sleep(0.02)  # about 50 messages a second
        await until(lambda: len(desk.told) == sent, "the last message")
        print(f"{sent} messages and calls")  # noqa: T201 - pytest shows it with -s
        after = lanes_of(bus)
        assert all(one is other for one, other in zip(lanes, after, strict=True))
        assert bus.ready
    assert set(desk.told.values()) == {1}


async def test_a_half_open_connection_is_noticed_within_two_heartbeats_and_another_takes_its_place(
    vhost_url: str,
) -> None:
    desk, heartbeat = Desk(), 2
    async with way_to(vhost_url) as (way, url):
        # The stop does not wait for the request that is never answered.
        serving = Bus("fastlane", settings=Settings(url=SecretStr(vhost_url), stop_grace=0))
        client = Bus("fastlane", settings=Settings(url=SecretStr(url), heartbeat=heartbeat))
        async with serving, serving.serving(desk.router()), client:
            before = lanes_of(client)
            pending = asyncio.create_task(client.request(Wait(), timeout=40))
            await until(lambda: desk.waiting, "the call to be under way")
            began = time.monotonic()
            way.freeze()
            with pytest.raises(Unavailable):
                await pending
            noticed = time.monotonic() - began
            await until(
                lambda: client.ready and not {*map(id, before)} & {*map(id, lanes_of(client))},
                "new connections",
                seconds=30,
            )
            back = time.monotonic() - began
            await client.publish(Told(number=1), timeout=40)
            assert await client.request(Ask(text="back"), timeout=40) == Word(text="back")
            await until(lambda: desk.told, "the message")
            print(f"noticed after {noticed:.1f} s, back after {back:.1f} s")  # noqa: T201 - for -s
    assert noticed < 2 * heartbeat + 3


# --- TLS ---


@dataclass(frozen=True, kw_only=True)
class SecureNode:
    node: PrivateNode
    port: int
    certificates: Certificates

    def url(self, host: str) -> str:
        credentials = urlsplit(self.node.url).netloc.rpartition("@")[0]
        return f"amqps://{credentials}@{host}:{self.port}/"


@pytest.fixture
async def secure_node(installation: Installation, tmp_path: Path) -> AsyncIterator[SecureNode]:
    made = certificates(tmp_path / "localhost", "localhost")
    (port,) = free_ports(1)
    config = {
        "listeners.ssl.default": f"{LOOPBACK}:{port}",
        "ssl_options.cacertfile": str(made.authority),
        "ssl_options.certfile": str(made.certificate),
        "ssl_options.keyfile": str(made.key),
        "ssl_options.verify": "verify_none",
        "ssl_options.fail_if_no_peer_cert": "false",
    }
    node = PrivateNode(installation, config=config)
    await node.start()
    yield SecureNode(node=node, port=port, certificates=made)
    await node.stop()


@pytest.mark.broker
async def test_an_encrypted_lane_refuses_a_certificate_of_another_name_or_an_unknown_authority(
    secure_node: SecureNode, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk = Desk()
    monkeypatch.setenv("BUS_CONNECT_TIMEOUT", "30")
    monkeypatch.setenv("BUS_URL", secure_node.url("localhost"))
    monkeypatch.setenv("BUS_CA_FILE", str(secure_node.certificates.authority))
    async with Bus("fastlane") as bus, bus.serving(desk.router()):
        assert lanes_of(bus)[0].transport.get_extra_info("cipher")
        assert await bus.request(Ask(text="x" * MIB), timeout=40) == Word(text="x" * MIB)
        await bus.publish(Told(number=1), timeout=40)
        await until(lambda: desk.told == {1: 1}, "the message")

    # The bus repeats the attempt until the timeout, because a certificate may be replaced.
    monkeypatch.setenv("BUS_CONNECT_TIMEOUT", "4")
    monkeypatch.setenv("BUS_URL", secure_node.url(LOOPBACK))
    with pytest.raises(
        Unavailable, match=r"certificate is not valid for '127\.0\.0\.1'"
    ) as another_name:
        await Bus("fastlane").__aenter__()

    stranger = certificates(tmp_path / "stranger", "stranger").authority
    monkeypatch.setenv("BUS_URL", secure_node.url("localhost"))
    monkeypatch.setenv("BUS_CA_FILE", str(stranger))
    with pytest.raises(Unavailable, match="certificate verify failed") as unknown:
        await Bus("fastlane").__aenter__()

    for refusal in (another_name, unknown):
        print(refusal.value)  # noqa: T201 - pytest shows it with -s
        assert len(str(refusal.value).splitlines()) == 1
        assert str(urlsplit(secure_node.node.url).password) not in str(refusal.value)


# --- Load ---


async def test_fifty_thousand_messages_are_each_handled_once_and_leave_no_memory_behind(
    vhost_url: str,
) -> None:
    desk, numbers = Desk(told=dict.fromkeys(range(MANY), 0)), iter(range(MANY))
    async with (
        Bus("fastlane", settings=Settings(url=SecretStr(vhost_url))) as bus,
        bus.serving(desk.router(IN_FLIGHT)),
    ):
        began, warm = time.monotonic(), 0

        async def publish() -> None:
            nonlocal warm
            for number in numbers:
                await bus.publish(Told(number=number), timeout=30)
                if number == MANY // 10:
                    warm = resident()

        await asyncio.gather(*(publish() for _ in range(IN_FLIGHT)))
        confirmed = time.monotonic() - began
        await until(
            lambda: desk.told[MANY - 1] and all(desk.told.values()),
            "each to be handled",
            seconds=60,
        )
        growth = resident() - warm
        print(  # noqa: T201 - pytest shows it with -s
            f"confirmed after {confirmed:.1f} s, handled after {time.monotonic() - began:.1f} s,"
            f" grown by {growth / MIB:.1f} MiB"
        )
    assert set(desk.told.values()) == {1}
    assert growth < 30 * MIB


@pytest.mark.parametrize("size", SIZES)
async def test_a_body_of_any_size_comes_whole_both_ways(vhost_url: str, size: int) -> None:
    desk, text = Desk(), secrets.token_hex(size // 2)
    settings = Settings(url=SecretStr(vhost_url))
    async with (
        Bus("fastlane", settings=settings) as serving,
        serving.serving(desk.router()),
        Bus("fastlane", settings=settings) as client,
    ):
        assert await client.request(Ask(text=text), timeout=40) == Word(text=text)
        await client.request(Hush(text=text), timeout=40)  # the answer is the shortest body: null
        assert desk.texts.pop() == text
        await client.publish(Told(number=1, text=text), timeout=40)
        await until(lambda: desk.told, "the event")
    assert "".join(desk.texts) == text


# --- Alarms ---


async def test_an_alarm_ends_publishes_by_their_deadline_and_leaves_consumers_at_work(
    private_node: PrivateNode,
) -> None:
    desk, settings, waiting = Desk(), Settings(url=SecretStr(private_node.url)), 100
    async with Bus("fastlane", settings=settings) as bus, bus.serving(desk.router(concurrency=5)):
        desk.gate.clear()
        for number in range(waiting):
            await bus.publish(Told(number=number), timeout=40)
        await raise_alarm(private_node)
        # The first publish is written before the broker reports the alarm, the second one after.
        for number in (waiting, waiting + 1):
            began = time.monotonic()
            with pytest.raises((Unavailable, DeadlineExceeded)):
                await bus.publish(Told(number=number), timeout=1)
            assert time.monotonic() - began < 20
        desk.gate.set()
        await until(
            lambda: {*range(waiting)} <= desk.told.keys(),
            "the messages of before, while the alarm lasts",
        )
        publish = asyncio.create_task(bus.publish(Told(number=waiting + 2), timeout=40))
        await set_watermark(private_node, "1GB")
        began = time.monotonic()
        await publish
        seconds = time.monotonic() - began
        print(f"confirmed {seconds:.2f} s after the end of the alarm")  # noqa: T201 - for -s
        await until(lambda: waiting + 2 in desk.told, "the message of after")
