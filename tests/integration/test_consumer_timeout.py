"""What RabbitMQ 4.3 does with what is overdue, and what is left of the consumer that had it. Older brokers close the channel."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from bus.brokers.broker import Broker
from bus.topology import Queue, Topology
from bus.transport import Accepted
from bus.transports.rabbitmq import RabbitMQTransport
from tests.conformance.ports import quorum, to
from tests.conformance.world import Ear, Inbox, Side, message, until
from tests.integration.ledger import Place

OVERDUE = 3.0
"""Seconds. A second one has to be overdue a good while later."""
CANCELS_FROM = (4, 3)


@pytest.fixture(params=[True, False], ids=["fastlane", "plain"])
def fastlane(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


@pytest.fixture
async def place(shared_broker: Broker, vhost_url: str) -> Place:
    """A virtual host in which `inbox` has a consumer timeout of its own, on a broker that cancels for it."""
    place = Place(shared_broker, vhost_url)
    version = await place.api.version()
    if tuple(int(part) for part in version.split(".")[:2]) < CANCELS_FROM:
        pytest.skip(f"RabbitMQ cancels a consumer for what is overdue from 4.3 on; this is {version}")
    await place.policy("inbox", {"consumer-timeout": int(OVERDUE * 1000)})
    return place


@asynccontextmanager
async def side(place: Place, name: str, *, fastlane: bool) -> AsyncIterator[Side]:
    transport, ear = RabbitMQTransport(place.settings.model_copy(update={"fastlane": fastlane}), name=name), Ear()
    await transport.start(ear, timeout=30)
    try:
        yield Side(transport, ear)
    finally:
        await transport.close()


async def overdue(here: Side, queue: Queue, topology: Topology) -> Inbox:
    """An inbox whose first message was taken back and came again, and whose second came too late to be overdue."""
    inbox = await here.consume(queue, topology, prefetch=10)
    assert await here.send(message("long"), to("inbox")) == Accepted()
    await inbox.holds(1)
    await asyncio.sleep(OVERDUE * 2 / 3)  # nothing to wait for: it is to be younger
    assert await here.send(message("neighbour"), to("inbox")) == Accepted()
    await inbox.holds(3)
    assert inbox.ids == ["long", "neighbour", "long"]
    assert [delivery.redelivered for delivery in inbox.deliveries] == [False, False, True]
    return inbox


async def test_what_is_not_overdue_is_still_acked_where_it_came_and_comes_to_nobody_else(place: Place, fastlane: bool) -> None:
    queue, topology = quorum("inbox")
    async with side(place, "here", fastlane=fastlane) as here, side(place, "other", fastlane=fastlane) as other:
        inbox = await overdue(here, queue, topology)
        late, neighbour, again = inbox.deliveries
        elsewhere = await other.consume(queue, topology, prefetch=10)
        assert not await late.ack()
        assert not await neighbour.ack()
        assert await again.ack()
        await inbox.consumption.close()
        # Whatever the broker still had would come here before this one.
        await here.send(message("last"), to("inbox"))
        assert (await elsewhere.next()).envelope.id == "last"


async def test_a_late_ack_brings_no_message_to_the_channel_of_before(place: Place, fastlane: bool) -> None:
    queue, topology = quorum("inbox")
    async with side(place, "here", fastlane=fastlane) as here:
        inbox = await overdue(here, queue, topology)
        await inbox.deliveries[0].ack()
        numbers = [str(number) for number in range(7)]
        for number in numbers:
            await here.send(message(number), to("inbox"))
        came = (await inbox.holds(3 + len(numbers)))[3:]
        assert [delivery.envelope.id for delivery in came] == numbers
        assert [await delivery.ack() for delivery in came] == [True] * len(numbers)

        async def one_is_registered() -> bool:
            (row,) = await place.api.call("GET", f"queues/{place.vhost}?disable_stats=true&enable_queue_totals=true")
            return len(await place.api.call("GET", f"consumers/{place.vhost}")) == 1 and row["messages"] == 2

        await until(one_is_registered, "one consumer, with the two messages of before")


async def test_what_is_unsettled_on_a_channel_of_before_goes_back_when_the_consumer_is_closed(place: Place, fastlane: bool) -> None:
    queue, topology = quorum("inbox")
    async with side(place, "here", fastlane=fastlane) as here, side(place, "other", fastlane=fastlane) as other:
        inbox = await overdue(here, queue, topology)
        await inbox.deliveries[2].ack()
        await inbox.consumption.close()
        assert not await inbox.deliveries[1].ack()
        elsewhere = await other.consume(queue, topology)
        assert (await elsewhere.next()).envelope.id == "neighbour"
