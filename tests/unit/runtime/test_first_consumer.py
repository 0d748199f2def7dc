"""The first consumer of an endpoint, which another one with the full prefetch replaces.

RabbitMQ returns a delivery to a quorum queue if the consumer was cancelled while the delivery was
on its way, and counts it as lost. It sends no delivery to a consumer with a prefetch of 1 that has
an unacked one.
"""

import asyncio
from dataclasses import dataclass, field

import pytest

from bus.runtime.consumer_cancellation import REGISTER_TIMEOUT_SECONDS
from bus.runtime.endpoint_consumer import EndpointConsumer
from bus.runtime.poison_isolation import CandidateQueue
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
from tests.unit.ledger import CloseBooks, Total


def job(number: int) -> FakeDelivery:
    return FakeDelivery(
        envelope("ledger.close.v1", role="job", id=f"m-{number}", queue="ledger.jobs.close.v1")
    )


@dataclass
class Served:
    """An endpoint with a concurrency of 8, and a transport that returns `consumption`."""

    transport: FakeTransport
    consumer: EndpointConsumer
    handled: list[str] = field(default_factory=list)


async def serve(consumption: FakeConsumerHandle) -> Served:
    router, handled = Router("ledger"), list[str]()

    @router.job(CloseBooks, concurrency=8)
    async def close(_: CloseBooks) -> Total:
        handled.append("a message")
        return Total(total=1)

    transport = FakeTransport(consumption=consumption)
    receiver = receiver_of(router, transport, candidates=CandidateQueue())
    consumer = EndpointConsumer(transport, receiver)
    await consumer.start()
    return Served(transport, consumer, handled)


@virtual
async def test_the_first_message_is_acked_after_the_cancellation_of_its_consumer() -> None:
    first = FakeConsumerHandle(hold=asyncio.Event())
    served, delivery = await serve(first), job(1)
    served.transport.consumption = FakeConsumerHandle()
    served.transport.deliver(delivery)
    await settle_down()
    assert (first.ready, served.handled, delivery.acks) == (False, ["a message"], 0)
    assert first.hold is not None
    first.hold.set()
    await settle_down()
    assert (delivery.acks, first.closed) == (1, 1)


@virtual
async def test_the_first_message_is_rejected_after_the_cancellation_of_its_consumer() -> None:
    first = FakeConsumerHandle(hold=asyncio.Event())
    served, delivery = await serve(first), job(1)
    delivery.envelope = delivery.envelope.replace(fault="too large", body=b"")
    served.transport.consumption = FakeConsumerHandle()
    served.transport.deliver(delivery)
    await settle_down()
    assert (served.handled, delivery.acks + delivery.rejects) == ([], 0)
    assert first.hold is not None
    first.hold.set()
    await settle_down()
    assert (delivery.acks + delivery.rejects, first.closed) == (1, 1)


@virtual
async def test_a_message_that_arrives_while_the_first_consumer_is_replaced_is_acked_later() -> None:
    first = FakeConsumerHandle(hold=asyncio.Event())
    served, lost, again = await serve(first), job(1), job(2)
    deliver_to_first = served.transport.deliver
    served.transport.consumption = FakeConsumerHandle()
    deliver_to_first(lost)
    await settle_down()
    lost.alive = False  # the connection was lost, and the first consumer is registered again
    deliver_to_first(again)
    await settle_down()
    assert again.acks == 0
    assert first.hold is not None
    first.hold.set()
    await settle_down()
    assert again.acks == 1


@virtual
async def test_the_second_consumers_messages_are_acked_at_once() -> None:
    served = await serve(FakeConsumerHandle(hold=asyncio.Event()))
    served.transport.consumption = FakeConsumerHandle()
    served.transport.deliver(job(1))
    await settle_down()
    delivery = job(2)
    served.transport.deliver(delivery)
    await settle_down()
    assert delivery.acks == 1


@virtual
async def test_a_first_message_is_acked_if_the_second_consumer_cannot_be_registered() -> None:
    served, deliveries = await serve(FakeConsumerHandle()), [job(1), job(2)]
    deliver_to_first = served.transport.deliver
    served.transport.consumption = FakeConsumerHandle(ready=False)
    deliver_to_first(deliveries[0])
    await asyncio.sleep(REGISTER_TIMEOUT_SECONDS - 1)
    assert deliveries[0].acks == 0
    await asyncio.sleep(2)
    assert deliveries[0].acks == 1
    deliver_to_first(deliveries[1])
    await settle_down()
    assert deliveries[1].acks == 1
    await served.consumer.close()


@virtual
async def test_a_first_message_is_acked_if_the_service_stops_before_the_replacement() -> None:
    served, delivery = await serve(FakeConsumerHandle()), job(1)
    served.transport.consumption = FakeConsumerHandle(ready=False)
    served.transport.deliver(delivery)
    await settle_down()
    assert delivery.acks == 0
    await served.consumer.cancel()
    await settle_down()
    assert delivery.acks == 1


@virtual
async def test_a_first_message_is_acked_if_the_replacement_fails(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    served, delivery = await serve(FakeConsumerHandle()), job(1)

    async def fail(*_: object) -> FakeConsumerHandle:
        raise OSError

    monkeypatch.setattr(served.transport, "consume", fail)
    served.transport.deliver(delivery)
    await settle_down()
    assert delivery.acks == 1
