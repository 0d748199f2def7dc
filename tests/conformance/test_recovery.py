"""Tests of the port: the transport recovers from each fault by itself."""

import asyncio

import pytest

from bus.errors import TopologyMismatch, Unavailable
from bus.messaging.ports.transport import Accepted, Returned
from bus.messaging.topology.consumer_spec import ConsumerSpec
from bus.messaging.topology.model import Queue, Topology
from bus.settings import Settings
from tests.conformance.ports import plain, quorum, to
from tests.conformance.world import Ear, Inbox, Side, World, message, stays, until


async def test_a_consumer_comes_back_after_its_connection_was_lost(world: World) -> None:
    desk = await world.connect()
    queue, topology = quorum("inbox")
    inbox = await desk.consume(queue, topology)
    await world.drop_connections(desk)
    await until(lambda: desk.ear.losses == 1, "the loss to be noticed")
    await until(lambda: inbox.consumption.ready, "the consumer")
    assert await desk.send(message("1"), to("inbox"), timeout=30) == Accepted()
    assert (await inbox.next()).envelope.id == "1"
    assert await world.consumers("inbox") == 1


async def test_a_consumer_is_not_ready_while_the_broker_is_down_and_says_why(world: World) -> None:
    desk = await world.connect()
    queue, topology = quorum("inbox")
    inbox = await desk.consume(queue, topology)
    assert inbox.consumption.last_error is None
    await world.stop_broker()
    await until(lambda: not inbox.consumption.ready, "the consumer to be not ready")
    await until(lambda: inbox.consumption.last_error, "the reason")
    await world.start_broker()
    async with asyncio.timeout(30):
        await inbox.consumption.wait_ready()
    assert inbox.consumption.last_error is None


async def test_a_consumer_declares_and_consumes_again_when_its_queue_was_deleted(
    world: World,
) -> None:
    desk = await world.connect()
    queue, topology = quorum("inbox")
    inbox = await desk.consume(queue, topology)
    await world.delete_queue("inbox")
    await _reaches(world, desk, inbox)


async def test_an_exclusive_queue_goes_with_its_connection_and_is_declared_again(
    world: World,
) -> None:
    desk, other = await world.connect("desk"), await world.connect("other")
    _, bindings = plain("own")
    queue = Queue(name="own", role="replies", durable=False, exclusive=True)
    topology = Topology(exchanges=bindings.exchanges, queues=(queue,), bindings=bindings.bindings)
    inbox = await desk.consume(queue, topology, acks=False)
    assert await other.send(message("1"), to("own")) == Accepted()
    await inbox.next()
    await world.stop_broker()
    await world.start_broker()
    await until(lambda: inbox.consumption.ready and desk.ear.losses, "the consumer")
    assert await other.send(message("2"), to("own"), timeout=30) == Accepted()
    assert (await inbox.next()).envelope.id == "2"
    await desk.transport.close()

    async def gone() -> bool:
        return isinstance(await other.send(message(), to("own"), timeout=30), Returned)

    await until(gone, "the queue to go with its connection")


async def test_one_failed_consumer_leaves_the_others_ready(world: World) -> None:
    desk = await world.connect()
    queue, topology = quorum("good")
    inbox = await desk.consume(queue, topology)
    await desk.transport.declare(plain("bad")[1])
    clashing, its_topology = plain("bad", **{"x-message-ttl": 1000})
    spec = ConsumerSpec(queue=clashing, topology=its_topology, prefetch=1)
    failed = await desk.transport.consume(spec, lambda _: None)
    await until(lambda: failed.last_error, "the trouble")
    assert "x-message-ttl" in (failed.last_error or "")
    assert not failed.ready
    await stays(lambda: inbox.consumption.ready, "the other is ready")
    assert await desk.send(message("1"), to("good")) == Accepted()
    assert (await inbox.next()).envelope.id == "1"


async def test_a_failed_consumer_is_ready_as_soon_as_what_hindered_it_is_gone(world: World) -> None:
    desk = await world.connect()
    await desk.transport.declare(plain("inbox")[1])
    queue, topology = plain("inbox", **{"x-message-ttl": 60_000})
    spec = ConsumerSpec(queue=queue, topology=topology, prefetch=1)
    consumption = await desk.transport.consume(spec, lambda _: None)
    await until(lambda: consumption.last_error, "the trouble")
    await world.delete_queue("inbox")
    async with asyncio.timeout(30):
        await consumption.wait_ready()
    assert consumption.last_error is None


async def test_work_that_was_unacked_is_delivered_to_another_when_its_consumer_dies(
    world: World,
) -> None:
    dying, heir = await world.connect("dying"), await world.connect("heir")
    queue, topology = quorum("inbox")
    held = await dying.consume(queue, topology, prefetch=10)
    for number in range(5):
        await dying.send(message(str(number)), to("inbox"))
    await held.holds(5)
    inbox = await heir.consume(queue, topology)
    await dying.transport.close()
    await inbox.holds(5)
    assert sorted(inbox.ids) == ["0", "1", "2", "3", "4"]
    assert all(delivery.redelivered for delivery in inbox.deliveries)


async def test_a_start_without_a_broker_ends_by_its_timeout(world: World) -> None:
    side = await world.connect()
    transport = await world.new_transport("late", Settings())
    await world.stop_broker()
    with pytest.raises(Unavailable):
        await transport.start(Ear(), timeout=0.5)
    await transport.close()
    await side.transport.close()


async def test_what_exists_with_other_arguments_is_named(world: World) -> None:
    desk = await world.connect()
    await desk.transport.declare(plain("inbox", **{"x-message-ttl": 1000})[1])
    with pytest.raises(TopologyMismatch, match=r"x-message-ttl.*inbox.*2000.*1000"):
        await desk.transport.declare(plain("inbox", **{"x-message-ttl": 2000})[1])
    with pytest.raises(TopologyMismatch, match="inbox"):
        await desk.transport.declare(quorum("inbox", **{"x-message-ttl": 1000})[1])
    await desk.transport.declare(plain("inbox", **{"x-message-ttl": 1000})[1])


async def test_declaring_twice_changes_nothing(world: World) -> None:
    desk = await world.connect()
    _, topology = quorum("inbox")
    await desk.transport.declare(topology)
    await desk.send(message("1"), to("inbox"))
    await desk.transport.declare(topology)
    await world.holds("inbox", 1)


async def test_ten_losses_in_a_row_lose_no_confirmed_message(world: World) -> None:
    desk, reader = await world.connect("desk"), await world.connect("reader")
    queue, topology = quorum("inbox")
    inbox = await reader.consume(queue, topology, prefetch=50)
    confirmed: list[str] = []

    async def publish() -> None:
        for number in range(200):
            try:
                await desk.send(message(str(number)), to("inbox"), timeout=30)
            except Unavailable:
                continue
            confirmed.append(str(number))

    publishing = asyncio.create_task(publish())
    seen: set[str] = set()
    for _ in range(10):
        await until(lambda: inbox.deliveries or publishing.done(), "deliveries")
        await world.drop_connections()
        await until(lambda: inbox.consumption.ready, "the consumer")
    await publishing

    async def all_seen() -> bool:
        while inbox.deliveries:
            delivery = inbox.deliveries.pop(0)
            seen.add(delivery.envelope.id)
            await delivery.ack()
        return set(confirmed) <= seen

    await until(all_seen, "every confirmed message")
    assert len(confirmed) > 150


async def _reaches(world: World, desk: Side, inbox: Inbox) -> None:
    async def sent() -> bool:
        return await desk.send(message("1"), to("inbox"), timeout=30) == Accepted()

    await until(sent, "a queue to take it")
    assert (await inbox.next()).envelope.id == "1"
