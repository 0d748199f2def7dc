"""Tests of `bus trace` on a real RabbitMQ: a retry tier, a dead letter, and what it must not do."""

import time
from collections.abc import AsyncIterator

import aio_pika
import pytest
from pydantic import SecretStr

from bus import Bus, Context, Event, Job, RetryPolicy, Router, Settings, contract
from bus.cli.trace.sources import SourceOptions, read_trace
from bus.messaging.context import correlated
from bus.operations.brokers.broker import Broker
from bus.operations.message_trace.join import join
from bus.operations.message_trace.model import MessageTrace, TracedMessage
from tests.broker import management_url
from tests.polling import until

OPTIONS = SourceOptions(scan=100, window=0.4)


@contract("windmill.grind", version=1)
class Grind(Job[None]):
    grain: str


@contract("windmill.ground", version=1)
class Ground(Event):
    grain: str


@contract("windmill.deliver", version=1)
class Deliver(Job[None]):
    """A job that always fails at once."""


router = Router("windmill")


@router.job(Grind, retry=RetryPolicy(attempts=2, first_delay=30))
async def grind(job: Grind, context: Context) -> None:
    await context.bus.publish(Ground(grain=job.grain))
    await context.bus.submit(Deliver())
    raise RuntimeError("the mill stands still")


@router.job(Deliver, retry=RetryPolicy(attempts=1))
async def deliver(_job: Deliver) -> None:
    raise RuntimeError("no cart")


@router.event(Ground, subscription="baker")
async def bake(_event: Ground) -> None:
    """Do nothing."""


@pytest.fixture
def settings(vhost_url: str, shared_broker: Broker) -> Settings:
    url = SecretStr(management_url(shared_broker))
    return Settings(url=SecretStr(vhost_url), management_url=url, auth="off")


@pytest.fixture
async def bus(settings: Settings) -> AsyncIterator[Bus]:
    async with Bus("windmill", settings=settings) as bus, bus.serving(router):
        yield bus


async def traced(settings: Settings, text: str) -> MessageTrace | None:
    reading = await read_trace(settings, text, OPTIONS)
    if reading.identified is None:
        return None
    return join(reading.identified.correlation_id, reading.sources, now=int(time.time() * 1000))


async def fail(bus: Bus, settings: Settings) -> dict[str, TracedMessage]:
    """Submit the job that fails, and return its trace when the effects have ended."""
    with correlated("harvest-26"):
        await bus.submit(Grind(grain="rye"))
    await until(lambda: len(bus._report.find("harvest-26").messages) >= 8, "all actions")
    trace = await traced(settings, "harvest-26")
    assert trace is not None
    return {message.type: message for message in trace.messages}


async def test_a_trace_joins_a_retry_tier_a_dead_letter_and_the_memory(
    bus: Bus, settings: Settings
) -> None:
    before = time.time() * 1000
    found = await fail(bus, settings)
    after = time.time() * 1000
    assert {type_: (each.state, each.depth) for type_, each in found.items()} == {
        "windmill.grind.v1": ("retrying", 0),
        "windmill.ground.v1": ("handled", 1),
        "windmill.deliver.v1": ("dead", 1),
    }
    [waiting] = found["windmill.grind.v1"].paths
    assert (waiting.tier, waiting.queue) == ("30s", "windmill.jobs.grind.v1")
    assert waiting.returns_at is not None
    assert before <= waiting.returns_at - 30_000 <= after
    [dead] = found["windmill.deliver.v1"].paths
    assert dead.death is not None
    assert (dead.death.code, dead.death.dead_queue) == ("internal", "windmill.jobs.deliver.v1.dead")
    assert "test_trace.py" in (dead.death.where or "")


async def test_a_trace_leaves_the_waiting_messages_untouched(settings: Settings) -> None:
    async with Bus("windmill", settings=settings) as bus:
        async with bus.serving(router):
            await fail(bus, settings)
        await bus.submit(Grind(grain="oats"))  # no worker takes it
        assert await traced(settings, "harvest-26") is not None
    async with await aio_pika.connect(settings.address) as connection:
        channel = await connection.channel()
        for name in ("windmill.retry.30s", "windmill.jobs.grind.v1"):
            message = await (await channel.get_queue(name, ensure=False)).get()
            assert message is not None
            assert not message.redelivered
            assert not message.headers.get("x-delivery-count")


async def test_after_the_end_of_a_worker_the_dead_letter_and_the_queues_are_left(
    settings: Settings,
) -> None:
    async with Bus("windmill", settings=settings) as bus, bus.serving(router):
        await fail(bus, settings)
    trace = await traced(settings, "harvest")
    assert trace is not None
    assert [(message.type, message.state) for message in trace.messages] == [
        ("windmill.deliver.v1", "dead")
    ]
    assert list(trace.unknown_causes) == [trace.messages[0].id]
    assert any("windmill.retry.30s (1 ready)" in note for note in trace.notes)
