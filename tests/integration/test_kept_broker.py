"""A broker that keeps its data: `bus broker --keep`."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import aio_pika
import pytest

from bus.errors import Unavailable
from bus.operations.brokers.broker_options import BrokerOptions
from bus.operations.brokers.installation import Installation, versions
from bus.operations.brokers.kept_node import KeptNode
from bus.operations.brokers.ports import free_ports
from bus.operations.management_api import Management
from tests.broker import kill_with_queues_on_disk
from tests.integration.command import bus

PASSWORD = "a b#\"%$'\\"


@pytest.fixture
async def nodes() -> AsyncIterator[list[KeptNode]]:
    started: list[KeptNode] = []
    yield started
    for node in started:
        await node.kill()


async def submit(url: str, queue: str) -> None:
    """Publish as the bus publishes a job: persistent, confirmed, into a quorum queue."""
    async with await aio_pika.connect(url, timeout=30) as connection:
        channel = await connection.channel()
        await channel.declare_queue(queue, durable=True, arguments={"x-queue-type": "quorum"})
        message = aio_pika.Message(b"kept", delivery_mode=aio_pika.DeliveryMode.PERSISTENT)
        await channel.default_exchange.publish(message, queue, timeout=30)


async def test_a_kept_broker_has_its_url_and_its_jobs_after_the_next_start(
    installation: Installation, tmp_path: Path, nodes: list[KeptNode]
) -> None:
    port, directory = free_ports(1)[0], tmp_path / "kept data"
    first = KeptNode(installation, directory, BrokerOptions(port=port, password=PASSWORD))
    nodes.append(first)
    refused, _ = await asyncio.gather(
        bus("broker", "--keep", str(directory), "--password", "another"), first.start()
    )
    assert (refused.code, "in use by another broker" in refused.err) == (69, True)
    assert f":{port}/" in first.url
    await submit(first.url, "work")

    await kill_with_queues_on_disk(first)  # without the 6 s of a graceful stop
    first._kept.save(replace(first._kept.state, rabbitmq="3.0.0"))  # as before an upgrade
    first._kept.unlock()
    second = KeptNode(installation, directory, BrokerOptions())
    nodes.append(second)
    assert (second.url, second.management_url) == (first.url, first.management_url)
    await second.start()
    assert await depth(second.url, "work") == 1
    # The API answers in a few milliseconds, and rabbitmqctl starts an Erlang VM.
    flags = await Management(second.management_url, second.url).call("GET", "feature-flags")
    assert {flag["state"] for flag in flags} == {"enabled"}
    assert second._kept.state.rabbitmq == versions(installation)["rabbitmq"]


async def depth(url: str, queue: str) -> int | None:
    async with await aio_pika.connect(url, timeout=30) as connection:
        channel = await connection.channel()
        declared = await channel.declare_queue(queue, passive=True, timeout=30)
        return declared.declaration_result.message_count


async def test_a_port_that_is_in_use_is_refused_before_a_start(
    installation: Installation, tmp_path: Path
) -> None:
    server = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server:
        node = KeptNode(installation, tmp_path / "kept", BrokerOptions(port=port))
        with pytest.raises(Unavailable, match=f"port {port} cannot be opened"):
            await node.start()
        await node.stop()
