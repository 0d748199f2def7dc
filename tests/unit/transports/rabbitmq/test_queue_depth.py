"""The count of a queue's messages, which RabbitMQ can get wrong for a quorum queue.

If the leader of a quorum queue does not count within 0.25 s, RabbitMQ answers 0 messages and 0
consumers, as for an empty queue.
"""

import asyncio
from dataclasses import dataclass, field
from typing import Any, cast

import pytest
from aiormq.abc import AbstractChannel
from pamqp.commands import Queue

from bus.transports.rabbitmq.open_connection import RPC_TIMEOUT_SECONDS
from bus.transports.rabbitmq.queue_depth import QueueDepth, depth_by
from tests.unit.fakes import virtual


@dataclass
class FakeChannel:
    """A channel to a broker. Its leader begins to answer at `busy_until`, by the loop's clock."""

    messages: int = 3
    consumers: int = 1
    busy_until: float = 0
    latency: float = 0.002
    """Seconds of each call on the network."""
    counts: list[float] = field(default_factory=list)
    """Times of the counts."""

    async def queue_declare(self, queue: str, **_: Any) -> Queue.DeclareOk:
        loop = asyncio.get_running_loop()
        self.counts.append(loop.time())
        await asyncio.sleep(self.latency)
        left = self.busy_until - loop.time()
        if left > 0.25:
            await asyncio.sleep(0.25)
            return Queue.DeclareOk(queue, 0, 0)
        await asyncio.sleep(max(left, 0))
        return Queue.DeclareOk(queue, self.messages, self.consumers)

    async def basic_qos(self, **_: Any) -> None:
        await asyncio.sleep(self.latency)


async def depth(channel: FakeChannel) -> QueueDepth:
    return await depth_by(cast("AbstractChannel", channel), "ledger.jobs.close.v1")


@virtual
async def test_a_count_that_the_leader_does_not_answer_in_time_is_repeated() -> None:
    channel = FakeChannel(busy_until=1.1)
    assert await depth(channel) == QueueDepth(ready=3, consumers=1)
    assert len(channel.counts) > 2


@virtual
async def test_a_queue_that_is_never_counted_is_not_reported_as_empty() -> None:
    with pytest.raises(TimeoutError):
        await depth(FakeChannel(busy_until=1000))
    assert 0 <= asyncio.get_running_loop().time() - RPC_TIMEOUT_SECONDS < 0.5


@virtual
async def test_an_empty_queue_is_counted_once_if_the_answer_is_quick() -> None:
    channel = FakeChannel(messages=0, consumers=0)
    assert await depth(channel) == QueueDepth()
    assert len(channel.counts) == 1


@virtual
async def test_an_empty_queue_at_a_distant_broker_is_counted_once() -> None:
    channel = FakeChannel(messages=0, consumers=0, latency=0.4)
    assert await depth(channel) == QueueDepth()
    assert len(channel.counts) == 1


@virtual
async def test_a_count_that_a_distant_leader_does_not_answer_in_time_is_repeated() -> None:
    channel = FakeChannel(busy_until=1.1, latency=0.4)
    assert await depth(channel) == QueueDepth(ready=3, consumers=1)


@virtual
async def test_a_late_count_with_messages_or_consumers_is_right() -> None:
    for known in (FakeChannel(messages=0), FakeChannel(consumers=0)):
        now = asyncio.get_running_loop().time()
        known.busy_until = now + 0.25
        assert await depth(known) == QueueDepth(ready=known.messages, consumers=known.consumers)
        assert len(known.counts) == 1
