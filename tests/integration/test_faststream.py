"""Tests of the bus in FastStream applications that FastStream runs."""

import asyncio
import signal
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import aio_pika
import pytest
from faststream import FastStream
from faststream.rabbit import RabbitBroker, TestRabbitBroker
from pamqp.commands import Basic
from pydantic import SecretStr
from typing_extensions import override

from bus import Bus, BusError, ConfigurationError, FailedPrecondition, Internal, Router, Settings
from bus.integrations.faststream import FastStreamTransport, attach, broker_of_its_own
from bus.messaging.topology.consumer_spec import ConsumerSpec
from tests.conformance.ports import HERE, quorum
from tests.conformance.world import Ear, Inbox
from tests.integration.command import ROOT, Ended, ended, running
from tests.integration.faststream_service import Answer, Ask, Note, router
from tests.polling import until

CANARY = "Eleonora Quist"


def faststream(
    url: str, *arguments: str
) -> AbstractAsyncContextManager[asyncio.subprocess.Process]:
    """Start `faststream run`, and kill it at the end of the block."""
    return running(
        "run",
        *arguments,
        program="faststream",
        BUS_URL=url,
        BUS_LOG_LEVEL="debug",
        PYTHONPATH=str(ROOT),
    )


def caller(url: str) -> Bus:
    return Bus("reader", settings=Settings(url=SecretStr(url)))


async def answered(bus: Bus, text: str) -> Answer:
    """Repeat a request until the service has started, and return the answer."""
    async with asyncio.timeout(100):
        while True:
            try:
                return await bus.request(Ask(text=text), timeout=5)
            except BusError:
                await asyncio.sleep(0.1)


@pytest.mark.parametrize("app", ["alone", "beside_another"])
async def test_it_serves_a_router_stops_cleanly_and_shows_nobody_a_payload(
    vhost_url: str, app: str
) -> None:
    target = f"tests.integration.faststream_service:{app}"
    async with (
        faststream(vhost_url, target, "--factory", "--log-level", "debug") as process,
        caller(vhost_url) as bus,
    ):
        assert await answered(bus, CANARY) == Answer(text=f"{CANARY} of the lifespan")
        with pytest.raises(Internal):
            await bus.request(Ask(text=CANARY, fails=True), timeout=40)
        job = await bus.submit(Note(text=CANARY), timeout=40)
        with pytest.raises(Internal):
            await job.result(timeout=40)
        process.send_signal(signal.SIGTERM)
        answer: Ended = await ended(process)
    assert answer.code == 0, answer.err
    assert "shut down gracefully" in answer.err
    assert CANARY not in answer.out + answer.err


async def test_several_processes_serve_it_and_stop_together(vhost_url: str) -> None:
    target = "tests.integration.faststream_service:alone"
    async with (
        faststream(vhost_url, target, "--factory", "--workers", "2") as process,
        caller(vhost_url) as bus,
    ):
        await answered(bus, "one")
        process.send_signal(signal.SIGTERM)
        answer = await ended(process)
    assert answer.code == 0, answer.err


class Theirs:
    """Broker options that a team may have set for its own messages only."""

    async def decode(self, message: Any) -> Any:
        raise ValueError("not theirs")

    async def encode(self, message: Any, serializer: Any = None) -> tuple[bytes, str | None]:
        return str(message).encode(), "text/plain"

    async def parser(self, message: Any, original: Callable[[Any], Any]) -> Any:
        raise ValueError("not theirs")

    async def decoder(self, message: Any) -> Any:
        raise ValueError("not theirs")


THEIRS = Theirs()


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"apply_types": False},
        {"codec": THEIRS},
        {"decoder": THEIRS.decoder},
        {"parser": THEIRS.parser},
    ],
    ids=["default", "untyped", "codec", "decoder", "parser"],
)
async def test_it_is_served_on_any_broker_of_an_application(
    vhost_url: str, options: dict[str, Any]
) -> None:
    app = FastStream(RabbitBroker(vhost_url, logger=None, **options), logger=None)
    bus = attach(app, router)
    async with app, caller(vhost_url) as reader:
        assert bus.ready
        assert (await reader.request(Ask(text="1"), timeout=40)).text.startswith("1")
        assert (await bus.request(Ask(text="2"), timeout=40)).text.startswith("2")


async def test_the_application_ends_after_what_runs(vhost_url: str) -> None:
    slow, begun, going_on = Router("ward"), asyncio.Event(), asyncio.Event()

    @slow.request(Ask)
    async def ask(request: Ask) -> Answer:
        begun.set()
        await going_on.wait()
        return Answer(text="done")

    app = FastStream(RabbitBroker(vhost_url, logger=None), logger=None)
    attach(app, slow)
    async with caller(vhost_url) as reader:
        await app.start()
        asking = asyncio.create_task(reader.request(Ask(text=""), timeout=40))
        await begun.wait()
        stopping = asyncio.create_task(app.stop())
        going_on.set()
        assert await asking == Answer(text="done")
        await stopping
        with pytest.raises(FailedPrecondition, match="Create a new application"):
            await app.start()
        await app.stop()


async def test_a_start_that_fails_says_why_and_leaves_nothing_behind(vhost_url: str) -> None:
    broken = Router("ward", lifespan=_broken)
    app = FastStream(RabbitBroker(vhost_url, logger=None), logger=None)
    attach(app, broken)
    with pytest.raises(ConfigurationError, match="no model"):
        await app.start()
    await app.stop()
    await until(lambda: len(asyncio.all_tasks()) == 1, "every task to end")


@asynccontextmanager
async def _broken() -> AsyncIterator[None]:
    if not ROOT.is_file():
        raise ConfigurationError("no model")
    yield


class Unreadable(Basic.Properties):
    """Properties with a timestamp far beyond the year 9999, which pamqp cannot decode."""

    @override
    def marshal(self) -> bytes:
        return struct.pack(">HQ", 1 << 6, 2**63)


async def test_a_message_that_nobody_can_read_costs_the_connection_once_and_arrives_as_malformed(
    vhost_url: str,
) -> None:
    settings = Settings(url=SecretStr(vhost_url))
    transport, inbox = (
        FastStreamTransport(
            broker_of_its_own(settings, name="desk"), settings=settings, name="desk"
        ),
        Inbox(),
    )
    await transport.start(ear := Ear(), timeout=40)
    queue, topology = quorum("inbox")
    spec = ConsumerSpec(queue=queue, topology=topology, prefetch=5)
    inbox.consumption = await transport.consume(spec, inbox.take)
    await until(lambda: inbox.consumption.ready, "the consumer")
    async with await aio_pika.connect(vhost_url) as connection:
        channel = await (await connection.channel()).get_underlay_channel()
        for body in (b"first", b"second"):
            await channel.basic_publish(
                body,
                exchange=HERE.name,
                routing_key="inbox",
                properties=Unreadable(message_id="1"),
                timeout=40,
            )
    await until(
        lambda: {delivery.envelope.body for delivery in inbox.deliveries} == {b"first", b"second"},
        "both",
    )
    assert all(delivery.envelope.fault for delivery in inbox.deliveries)
    assert ear.losses == 1
    await transport.close()


async def test_fast_streams_test_broker_is_refused_by_name() -> None:
    broker = RabbitBroker(logger=None)
    app = FastStream(broker, logger=None)
    attach(app, router)
    with pytest.raises(FailedPrecondition, match="MemoryBuses"):
        async with TestRabbitBroker(broker, connect_only=False), app:
            pass


def test_an_application_without_rabbitmq_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="no RabbitBroker"):
        attach(FastStream(), router)
