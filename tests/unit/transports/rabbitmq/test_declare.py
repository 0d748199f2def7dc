"""The declaration of a topology while another client deletes its objects."""

from typing import Any, cast

import pytest
from aiormq.channel import Channel
from aiormq.exceptions import ChannelNotFoundEntity

from bus.messaging.topology.model import Binding, Queue, Topology
from bus.transports.rabbitmq.declare import ATTEMPTS, declare_again

TOPOLOGY = Topology(
    queues=(Queue(name="q", role="requests"),),
    bindings=(Binding(exchange="bus.requests", queue="q"),),
)


class FakeBroker:
    """A broker on which another client deletes the queue before it is bound, some times."""

    def __init__(self, deletions: int) -> None:
        self.deletions = deletions
        self.declared = self.bound = 0

    async def open_channel(self) -> Channel:
        return cast("Channel", self)

    async def queue_declare(self, _queue: str, **_options: Any) -> None:
        self.declared += 1

    async def queue_bind(self, *_binding: str, **_options: Any) -> None:
        if self.declared <= self.deletions:
            raise ChannelNotFoundEntity("NOT_FOUND - no queue 'q'")
        self.bound += 1


async def test_a_queue_that_is_deleted_before_it_is_bound_is_declared_again() -> None:
    broker = FakeBroker(deletions=2)
    await declare_again(broker.open_channel, TOPOLOGY, timeout=1)
    assert (broker.declared, broker.bound) == (3, 1)


async def test_a_queue_that_never_stays_is_an_error() -> None:
    broker = FakeBroker(deletions=1000)
    with pytest.raises(ChannelNotFoundEntity):
        await declare_again(broker.open_channel, TOPOLOGY, timeout=1)
    assert broker.declared == ATTEMPTS
