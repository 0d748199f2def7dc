"""The prefetch of a consumer follows its adaptive limit, on virtual time."""

import asyncio
import gc
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, cast

import pytest
from typing_extensions import override

from bus.errors import Unavailable
from bus.messaging.envelope import new_id
from bus.messaging.ports.transport import ConsumerHandle, Delivery
from bus.messaging.resilience.adaptive_limit import AdaptiveLimit
from bus.messaging.topology.consumer_spec import ConsumerSpec
from bus.runtime.endpoint_consumer import EndpointConsumer
from bus.runtime.poison_isolation import CandidateQueue
from bus.runtime.prefetch_follower import following_limits
from bus.runtime.router import Router
from tests.unit.fakes import (
    FakeConsumerHandle,
    FakeDelivery,
    FakeTransport,
    envelope,
    receiver_of,
    settle_down,
    virtual,
)
from tests.unit.ledger import CloseBooks, GetTotal, Total


@dataclass
class FakeLimit:
    settled: int = 10
    prefetch: int = 10

    def follow(self, prefetch: int) -> None:
        self.prefetch = prefetch


@dataclass
class FakeState:
    adaptive: FakeLimit | None = field(default_factory=FakeLimit)


@dataclass
class FakeConsumer:
    state: FakeState = field(default_factory=FakeState)
    prefetch: int = 10
    accepts: bool = True
    changes: list[tuple[float, int]] = field(default_factory=list)
    name: str = "ledger.requests.total.v1"

    def change_prefetch(self, prefetch: int) -> bool:
        if self.accepts:
            self.changes.append((asyncio.get_running_loop().time(), prefetch))
            self.prefetch = prefetch
        return self.accepts


def following(*consumers: FakeConsumer) -> Any:
    return following_limits(cast("list[EndpointConsumer]", consumers))


@virtual
async def test_the_prefetch_follows_the_limit_at_most_every_30_seconds(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "bus")
    consumer, limit = FakeConsumer(), FakeLimit()
    consumer.state.adaptive = limit
    async with following(consumer):
        for second in range(100):
            limit.settled = 20 + second
            await asyncio.sleep(1)
    assert limit.prefetch == consumer.prefetch
    await asyncio.sleep(100)
    assert [(round(at), prefetch) for at, prefetch in consumer.changes] == [
        (30, 49),
        (60, 79),
        (90, 109),
    ]
    assert [each.getMessage() for each in caplog.records][:1] == [
        "ledger.requests.total.v1: the concurrency limit is now 49 (before: 10)"
    ]


@virtual
async def test_a_small_change_of_the_limit_registers_no_new_consumer() -> None:
    consumer, limit = FakeConsumer(), FakeLimit(settled=11)
    consumer.state.adaptive = limit
    async with following(consumer):
        await asyncio.sleep(100)
        assert consumer.changes == []
        limit.settled = 8
        await asyncio.sleep(40)
    assert [prefetch for _, prefetch in consumer.changes] == [8]


@virtual
async def test_a_change_that_was_not_possible_is_made_later() -> None:
    consumer = FakeConsumer(state=FakeState(FakeLimit(settled=20)), accepts=False)
    async with following(consumer):
        await asyncio.sleep(70)
        assert consumer.state.adaptive is not None
        assert consumer.state.adaptive.prefetch == 10
        consumer.accepts = True
        await asyncio.sleep(30)
    assert consumer.changes == [(90.0, 20)]


@virtual
async def test_a_fixed_limit_is_not_followed() -> None:
    consumer = FakeConsumer(state=FakeState(adaptive=None))
    tasks = len(asyncio.all_tasks())
    async with following(consumer):
        assert len(asyncio.all_tasks()) == tasks


@virtual
async def test_a_consumer_that_is_not_registered_or_is_paused_keeps_its_prefetch() -> None:
    router = Router("ledger")

    @router.request(GetTotal, concurrency=AdaptiveLimit(max=64, start=8))
    async def total(_: GetTotal) -> Total:
        return Total(total=1)

    transport = FakeTransport()
    receiver = receiver_of(router, transport, candidates=CandidateQueue())
    consumer = EndpointConsumer(transport, receiver)
    await consumer.start()
    transport.consumption.ready = False
    assert (consumer.change_prefetch(16), consumer.prefetch) == (False, 8)
    transport.consumption.ready = True
    assert (consumer.change_prefetch(16), consumer.prefetch) == (True, 16)
    assert not consumer.change_prefetch(32)  # the first change has not ended
    await settle_down()
    await consumer.pause()
    assert (consumer.change_prefetch(32), consumer.prefetch) == (False, 16)
    await consumer.resume()


class RefusingTransport(FakeTransport):
    """Transport that can refuse to register a consumer, as a transport of an application can."""

    refuses: bool = False

    @override
    async def consume(
        self, spec: ConsumerSpec, on_delivery: Callable[[Delivery], None]
    ) -> ConsumerHandle:
        if self.refuses:
            raise Unavailable("no channel")
        return await super().consume(spec, on_delivery)


@virtual
async def test_a_change_that_fails_is_logged_once_and_made_at_a_later_follow(
    caplog: pytest.LogCaptureFixture,
) -> None:
    router, unhandled = Router("ledger"), list[dict[str, Any]]()
    asyncio.get_running_loop().set_exception_handler(lambda _, context: unhandled.append(context))

    @router.request(GetTotal, concurrency=AdaptiveLimit(max=64, start=8))
    async def total(_: GetTotal) -> Total:
        return Total(total=1)

    transport = RefusingTransport()
    receiver = receiver_of(router, transport, candidates=CandidateQueue())
    limit = FakeLimit(settled=12)
    object.__setattr__(receiver.state, "adaptive", limit)
    consumer = EndpointConsumer(transport, receiver)
    await consumer.start()
    transport.refuses = True
    async with following_limits([consumer]):
        await asyncio.sleep(65)
        gc.collect()
        assert (consumer.prefetch, unhandled) == (8, [])
        warnings = [each for each in caplog.records if each.levelno == logging.WARNING]
        (text,) = [each.getMessage() for each in warnings]
        assert text.startswith(
            f"{consumer.name}: the consumer could not be replaced to change the prefetch: "
            "Unavailable at "
        )
        transport.refuses = False
        await asyncio.sleep(30)
        await settle_down()
    assert (consumer.prefetch, limit.prefetch) == (12, 12)


@virtual
async def test_a_first_consumer_that_was_not_replaced_is_replaced_at_a_later_delivery() -> None:
    router = Router("ledger")

    @router.job(CloseBooks, concurrency=8)
    async def close(_: CloseBooks) -> Total:
        return Total(total=1)

    transport = RefusingTransport()
    receiver = receiver_of(router, transport, candidates=CandidateQueue())
    consumer = EndpointConsumer(transport, receiver)
    await consumer.start()
    transport.refuses = True
    transport.deliver(FakeDelivery(envelope(role="job", id=new_id())))
    await settle_down()
    first = transport.consumption
    transport.refuses, transport.consumption = False, FakeConsumerHandle()
    transport.deliver(FakeDelivery(envelope(role="job", id=new_id())))
    await settle_down()
    assert (first.closed, consumer.ready) == (1, True)
