"""Tests of large messages against RabbitMQ: the memory of a worker, and the broker's own limit."""

import asyncio
import logging
import re
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from bus import (
    Bus,
    ConnectionLost,
    FailedPrecondition,
    InvalidArgument,
    Job,
    Message,
    Request,
    Router,
    contract,
)
from bus.operations.brokers.broker import Broker
from bus.operations.brokers.private_node import PrivateNode
from bus.settings import load_settings
from tests.broker import evaluate
from tests.polling import until

LARGE, COUNT = 40_000_000, 3
"""Bytes and number of the foreign requests."""
BROKER_LIMIT = 100_000
STATUS, REFERENCES = Path("/proc/self/status"), Path("/proc/self/clear_refs")


class Weight(Message):
    grams: int


@contract("shelf.weigh", version=1, idempotent=True)
class Weigh(Request[Weight]):
    text: str = ""


class Page(Message):
    text: str


@contract("shelf.read", version=1, idempotent=True)
class Read(Request[Page]):
    pass


@contract("shelf.pack", version=1)
class Pack(Job[None]):
    text: str = ""


def shelf() -> Router:
    router = Router("shelf")

    @router.request(Weigh)
    async def weigh(request: Weigh) -> Weight:
        return Weight(grams=len(request.text))

    @router.request(Read)
    async def read(request: Read) -> Page:
        return Page(text="x" * (2 * BROKER_LIMIT))

    @router.job(Pack)
    async def pack(job: Pack) -> None:
        assert job.text

    return router


def peak_megabytes() -> float:
    (peak,) = re.findall(r"VmHWM:\s+(\d+) kB", STATUS.read_text())
    return int(peak) / 1000


def reset_peak() -> None:
    try:
        REFERENCES.write_text("5")
    except OSError:
        pytest.skip("the peak of this process's memory cannot be reset here")


@asynccontextmanager
async def broker_limit(broker: Broker) -> AsyncIterator[None]:
    """Lower the broker's `max_message_size` for channels that are opened inside the block."""
    if not isinstance(broker, PrivateNode):
        pytest.skip("changes the limit of the broker, which needs a RabbitMQ of our own")
    set_limit = "application:set_env(rabbit, max_message_size, {}).".format
    before = re.findall(
        r"\d+", await evaluate(broker, "application:get_env(rabbit, max_message_size).")
    )
    await evaluate(broker, set_limit(BROKER_LIMIT))
    try:
        yield
    finally:
        await evaluate(broker, set_limit(before[0]))


@pytest.mark.parametrize("fastlane", [True, False], ids=["fast lane", "aiormq"])
async def test_unsigned_requests_beyond_the_limit_take_no_memory(
    vhost_url: str, caplog: pytest.LogCaptureFixture, *, fastlane: bool
) -> None:
    caplog.set_level(logging.WARNING)
    settings = load_settings(url=vhost_url, auth="dev", key="k" * 32, fastlane=fastlane)
    async with Bus("shelf", settings=settings) as bus, bus.serving(shelf()):
        reset_peak()
        before = peak_megabytes()
        sender = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "tests.integration.large_sender"),
            *(vhost_url, str(COUNT), str(LARGE)),
        )
        assert await sender.wait() == 0
        await until(
            lambda: caplog.text.count("the receiver reads at most 16777216 bytes") >= COUNT,
            "the rejection of each request",
        )
        assert peak_megabytes() - before < LARGE / 2 / 1_000_000
        assert await bus.request(Weigh(text="four")) == Weight(grams=4)


@pytest.mark.parametrize("fastlane", [True, False], ids=["fast lane", "aiormq"])
async def test_a_message_beyond_the_brokers_own_limit_is_refused_and_others_survive(
    shared_broker: Broker, vhost_url: str, *, fastlane: bool
) -> None:
    async with broker_limit(shared_broker):
        settings = load_settings(url=vhost_url, auth="off", fastlane=fastlane)
        async with Bus("shelf", settings=settings) as bus, bus.serving(shelf()):
            large = "x" * (2 * BROKER_LIMIT)
            outcomes = await asyncio.gather(
                bus.submit(Pack(text="small")),
                bus.submit(Pack(text=large)),
                bus.submit(Pack(text="small too")),
                bus.request(Weigh(text=large)),
                return_exceptions=True,
            )
            for refused in (outcomes[1], outcomes[3]):
                assert isinstance(refused, InvalidArgument)
                assert "the broker accepts at most 100000 bytes (max_message_size)" in str(refused)
            for sent in (outcomes[0], outcomes[2]):
                assert not isinstance(sent, ConnectionLost)
                assert not isinstance(sent, BaseException)
            # The next large message is refused before it is sent, so it closes no channel.
            with pytest.raises(InvalidArgument, match="the limit is 100000 bytes"):
                await bus.submit(Pack(text=large))
            assert await bus.request(Weigh(text="four")) == Weight(grams=4)


@pytest.mark.parametrize("fastlane", [True, False], ids=["fast lane", "aiormq"])
async def test_a_reply_beyond_the_brokers_own_limit_ends_its_call_with_the_reason(
    shared_broker: Broker, vhost_url: str, *, fastlane: bool
) -> None:
    async with broker_limit(shared_broker):
        settings = load_settings(url=vhost_url, auth="off", fastlane=fastlane)
        async with Bus("shelf", settings=settings) as bus, bus.serving(shelf()):
            with pytest.raises(FailedPrecondition, match=r"could not be sent: .* 100000 bytes"):
                await bus.request(Read(), timeout=30)
            assert await bus.request(Weigh(text="four")) == Weight(grams=4)
