"""Tests of `bus queues` on a real RabbitMQ: its output, and that it changes nothing."""

import asyncio
import json
import os
import time
from collections.abc import Mapping
from typing import Any

import aio_pika
import pytest
from aiormq.abc import FieldTable
from pydantic import SecretStr

from bus import Bus, Settings
from bus.operations.brokers.broker import Broker
from bus.operations.brokers.private_node import PrivateNode
from bus.operations.queue_inspection import (
    BrokerAddress,
    QueueFilter,
    QueueReport,
    QueueStatus,
    inspect_queues,
)
from bus.transports.rabbitmq.admin import open_admin_session
from bus.transports.rabbitmq.queue_depth import QueueDepth, depths
from tests.broker import evaluate, management_url
from tests.integration.command import bus
from tests.integration.library_service import ScanBook, heard, router
from tests.polling import until

WORK, DEAD, ASK = "library.jobs.scan.v1", "library.jobs.scan.v1.dead", "library.requests.find.v1"
NOBODY = "http://127.0.0.1:1"


@pytest.fixture
def where(vhost_url: str, shared_broker: Broker) -> BrokerAddress:
    return BrokerAddress(url=vhost_url, management_url=management_url(shared_broker))


@pytest.fixture
async def left(vhost_url: str) -> str:
    """Serve the library and stop it, then leave a waiting job and two dead letters."""
    heard.clear()
    async with library(vhost_url) as bus, bus.serving(router):
        pass
    async with library(vhost_url) as bus:
        await bus.submit(ScanBook(title="Emma"))
    async with await aio_pika.connect(vhost_url) as connection:
        channel = await connection.channel()
        for _ in range(2):
            await channel.default_exchange.publish(aio_pika.Message(b"{}", delivery_mode=2), DEAD)
    return vhost_url


def library(url: str) -> Bus:
    return Bus("library", settings=Settings(url=SecretStr(url)))


def state(seen: QueueReport, name: str) -> QueueStatus:
    return next(each for each in seen.queues if each.name == name)


async def test_what_waits_is_told_by_both_sources_and_by_amqp_alone(
    left: str, where: BrokerAddress
) -> None:
    for each, unacked in ((where, 0), (BrokerAddress(url=left, management_url=NOBODY), None)):
        seen = await inspect_queues(each, QueueFilter(service="library", guesses=(WORK, DEAD, ASK)))
        work, dead = state(seen, WORK), state(seen, DEAD)
        assert (work.ready, work.consumers, work.unacked) == (1, 0, unacked)
        assert (dead.ready, dead.work_queue) == (2, WORK)
        assert (seen.without_management is None) == (unacked is not None)


async def test_looking_takes_nothing_out_and_marks_nothing(left: str, where: BrokerAddress) -> None:
    for _ in range(3):
        await inspect_queues(where, QueueFilter())
    async with await aio_pika.connect(left) as connection:
        channel = await connection.channel()
        queue = await channel.declare_queue(DEAD, passive=True)
        letters = [await queue.get() for _ in range(2)]
    assert [letter.redelivered for letter in letters] == [False, False]
    assert all(letter.headers.get("x-delivery-count") in {None, 0} for letter in letters)


async def test_the_oldest_request_has_an_age_and_a_job_has_none(
    vhost_url: str, where: BrokerAddress
) -> None:
    kinds: Mapping[str, FieldTable] = {ASK: {}, WORK: {"x-queue-type": "quorum"}}
    async with await aio_pika.connect(vhost_url) as connection:
        channel = await connection.channel()
        for name, arguments in kinds.items():
            await channel.declare_queue(name, durable=True, arguments=arguments)
            await channel.default_exchange.publish(aio_pika.Message(b"{}", timestamp=1000), name)
    seen = await inspect_queues(where, QueueFilter())
    async with asyncio.timeout(100):
        while state(seen, ASK).oldest is None:  # the statistics are some seconds late
            await asyncio.sleep(0.1)
            seen = await inspect_queues(where, QueueFilter(), clock=lambda: 1090)
    assert (state(seen, ASK).oldest, state(seen, WORK).oldest) == (90, None)


async def test_a_queue_that_is_not_there_is_told_and_none_is_made(vhost_url: str) -> None:
    assert await depths(vhost_url, [WORK, ASK]) == {
        WORK: QueueDepth(missing=True),
        ASK: QueueDepth(missing=True),
    }
    assert await depths(vhost_url, [WORK]) == {WORK: QueueDepth(missing=True)}


async def test_an_exclusive_queue_of_somebody_else_is_a_trouble_and_no_error(
    vhost_url: str,
) -> None:
    async with await aio_pika.connect(vhost_url) as connection:
        channel = await connection.channel()
        await channel.declare_queue("library.replies.host-1-a", exclusive=True)
        asked = await depths(vhost_url, ["library.replies.host-1-a", WORK])
    assert "RESOURCE_LOCKED" in str(asked["library.replies.host-1-a"].last_error)
    assert asked[WORK].missing


@pytest.fixture
def calm(left: str, shared_broker: Broker) -> dict[str, str]:
    """Return the environment of a command that inspects these queues."""
    return {
        "BUS_URL": left,
        "BUS_MANAGEMENT_URL": management_url(shared_broker),
        "BUS_CONTRACTS": "tests.integration.library_service",
    }


async def test_the_command_tells_people_and_programs(calm: dict[str, str]) -> None:
    shown, told, of_router = await asyncio.gather(
        bus("queues", **calm),
        bus("queues", "library", "--json", **calm),
        bus(
            "queues",
            "tests.integration.library_service:router",
            "--json",
            **{**calm, "BUS_MANAGEMENT_URL": NOBODY},
        ),
    )
    assert shown.code == 0, shown.err
    assert f"{WORK}: 1 ready and no consumer; start library with `bus run`" in shown.out
    assert f"{DEAD}: 2 dead letters" in shown.out
    assert by_name(told.out)[WORK]["ready"] == by_name(of_router.out)[WORK]["ready"] == 1
    assert by_name(of_router.out)[WORK]["unacked"] is None
    assert json.loads(of_router.out)["without_management"]
    assert {*by_name(of_router.out)} == {
        queue.name for _, needs in router.topology().values() for queue in needs.queues
    }


def by_name(out: str) -> dict[str, Any]:
    return {each["name"]: each for each in json.loads(out)["queues"]}


async def test_a_service_that_has_no_queues_gets_the_nearest(calm: dict[str, str]) -> None:
    answer = await bus("queues", "libary", **calm)
    assert answer.code == os.EX_NOINPUT
    assert "did you mean 'library'?" in answer.err


async def test_without_the_management_api_all_queues_cannot_be_listed(calm: dict[str, str]) -> None:
    answer = await bus("queues", **{**calm, "BUS_MANAGEMENT_URL": NOBODY})
    assert answer.code == os.EX_UNAVAILABLE
    assert "MODULE:ROUTER" in answer.err
    assert len(answer.err.splitlines()) == 1


async def test_a_message_that_a_consumer_takes_is_counted_once(
    vhost_url: str, where: BrokerAddress
) -> None:
    async with await aio_pika.connect(vhost_url) as connection:
        channel = await connection.channel()
        await channel.set_qos(prefetch_count=2)
        queue = await channel.declare_queue(
            WORK, durable=True, arguments={"x-queue-type": "quorum"}
        )
        for _ in range(10):
            await channel.default_exchange.publish(aio_pika.Message(b"{}", delivery_mode=2), WORK)
        taken: list[aio_pika.abc.AbstractIncomingMessage] = []

        async def take(message: aio_pika.abc.AbstractIncomingMessage) -> None:
            taken.append(message)

        await queue.consume(take)
        await until(lambda: len(taken) == 2, "two messages")
        work = state(await inspect_queues(where, QueueFilter()), WORK)
    # RabbitMQ counts the messages of a quorum queue every 5 s, so the count can still be 0.
    assert (work.ready or 0) + (work.unacked or 0) in {0, 10}
    assert (work.consumers, work.is_sampled) == (1, True)


async def test_a_queue_that_the_broker_counts_late_is_neither_reported_as_empty_nor_deleted(
    private_node: PrivateNode,
) -> None:
    name, settings = "library.jobs.counted-late.v1", Settings(url=SecretStr(private_node.url))
    async with await aio_pika.connect(private_node.url) as connection:
        channel = await connection.channel()
        queue = await channel.declare_queue(
            name, durable=True, arguments={"x-queue-type": "quorum"}
        )
        for _ in range(3):
            await channel.default_exchange.publish(aio_pika.Message(b"{}", delivery_mode=2), name)
        async with open_admin_session(settings) as session:
            await evaluate(private_node, f"sys:suspend('%2F_{name}').")
            try:
                counting = asyncio.create_task(depths(private_node.url, [name]))
                deleting = asyncio.create_task(session.delete_idle(name, is_quorum=True))
                began = time.monotonic()
                await until(lambda: time.monotonic() - began > 1, "some answers of the broker")
            finally:
                await evaluate(private_node, f"sys:resume('%2F_{name}').")
            assert await counting == {name: QueueDepth(ready=3)}
            assert not await deleting
        await queue.delete(if_unused=False, if_empty=False)
