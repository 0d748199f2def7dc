"""Tests of the port and the topology: retry tiers, dead letters, and their return."""

import asyncio

from bus.messaging.ports.transport import Accepted, Returned
from bus.messaging.topology.addresses import dead_letter_address, retry_address
from bus.messaging.topology.declarations import BASE_EXCHANGES
from bus.messaging.topology.model import Queue, Topology
from bus.messaging.topology.names import dead_letter_queue, retry_tier, unroutable_queue
from tests.conformance.ports import plain, quorum, to, to_jobs, work_of
from tests.conformance.world import World, message, until


async def test_a_retry_tier_returns_a_message_to_its_work_queue_after_its_delay(
    world: World,
) -> None:
    desk = await world.connect()
    queue, topology = work_of("desk", "1s", "2m")
    inbox = await desk.consume(queue, topology)
    loop = asyncio.get_running_loop()
    began = loop.time()
    assert (
        await desk.send(message("1", attempt=2), retry_address("desk", "1s", queue.name))
        == Accepted()
    )
    back = (await inbox.next()).envelope
    assert 1 <= loop.time() - began < (1.1 if world.virtual else 60)
    assert (back.id, back.attempt, back.queue) == ("1", 2, queue.name)


async def test_an_hour_in_the_longest_tier_is_an_hour(virtual_world: World) -> None:
    desk = await virtual_world.connect()
    queue, topology = work_of("desk", "1h")
    inbox = await desk.consume(queue, topology)
    began = virtual_world.clock()
    await desk.send(message("1"), retry_address("desk", "1h", queue.name))
    back = (await inbox.next(seconds=3700)).envelope
    assert abs((back.received or 0) / 1000 - began - 3600) < 0.1


async def test_what_the_broker_writes_about_deaths_is_not_copied(world: World) -> None:
    desk = await world.connect()
    queue, topology = work_of("desk", "1s")
    inbox = await desk.consume(queue, topology)
    await desk.send(message("1", headers={"mine": "kept"}), retry_address("desk", "1s", queue.name))
    back = (await inbox.next()).envelope
    assert back.headers == {"mine": "kept"}
    await desk.send(back, dead_letter_address(queue.name))
    (dead,) = await world.holds(dead_letter_queue(queue.name), 1)
    # The dead-letter queue itself may count the deliveries.
    assert {name for name in dead.headers if name.startswith("x-")} <= {"x-delivery-count"}


async def test_a_retry_goes_round_ten_times_and_is_not_taken_for_a_cycle(
    virtual_world: World,
) -> None:
    desk = await virtual_world.connect()
    queue, topology = work_of("desk", "1s")
    inbox = await desk.consume(queue, topology)
    copy = message("1")
    for _ in range(10):
        await desk.send(copy, retry_address("desk", "1s", queue.name))
        delivery = await inbox.next()
        copy = delivery.envelope.replace(attempt=delivery.envelope.attempt + 1)
        await delivery.ack()
    assert copy.attempt == 11


async def test_a_full_work_queue_of_one_service_does_not_hold_anothers_retries(
    world: World,
) -> None:
    desk = await world.connect()
    full, its_topology = work_of("full", "1s")
    queue, topology = work_of("desk", "1s")
    await desk.transport.declare(its_topology)
    inbox = await desk.consume(queue, topology)
    await world.limit(full.name, 0)
    sends = [
        desk.send(message(f"full-{number}"), retry_address("full", "1s", full.name))
        for number in range(40)
    ]
    assert set(await asyncio.gather(*sends)) == {Accepted()}
    assert await desk.send(message("1"), retry_address("desk", "1s", queue.name)) == Accepted()
    assert (await inbox.next()).envelope.id == "1"


async def test_a_retry_whose_work_queue_is_deleted_is_kept_as_unroutable_and_holds_nobodys(
    world: World,
) -> None:
    desk = await world.connect()
    deleted, its_topology = work_of("gone", "1s")
    queue, topology = work_of("desk", "1s")
    await desk.transport.declare(its_topology)
    inbox = await desk.consume(queue, topology)
    await world.delete_queue(deleted.name)
    for number in range(40):
        await desk.send(message(f"gone-{number}"), retry_address("gone", "1s", deleted.name))
    await desk.send(message("1"), retry_address("desk", "1s", queue.name))
    assert (await inbox.next()).envelope.id == "1"
    assert len(await world.holds(unroutable_queue("gone"), 40)) == 40


async def test_a_message_whose_consumer_goes_too_often_is_dead_lettered_with_the_reason(
    world: World,
) -> None:
    desk = await world.connect()
    declared, topology = work_of("desk")
    queue = Queue(
        name=declared.name, role="jobs", arguments={**declared.arguments, "x-delivery-limit": 3}
    )
    others = tuple(each for each in topology.queues if each.name != queue.name)
    limited = Topology(
        exchanges=topology.exchanges, queues=(*others, queue), bindings=topology.bindings
    )
    inbox = await desk.consume(queue, limited, prefetch=1)
    await desk.send(message("poison"), to_jobs("desk.work.v1"))
    # A `requeue` would not do, because RabbitMQ 4.3 does not count it.
    for _ in range(4):
        await inbox.next()
        await world.drop_connections(desk)
    (dead,) = await world.holds(dead_letter_queue(queue.name), 1)
    assert dead.message_id == "poison"
    assert [(death["reason"], death["queue"]) for death in dead.headers["x-death"]] == [
        ("delivery_limit", queue.name)
    ]
    assert not inbox.deliveries


async def test_a_dead_letter_that_was_looked_at_fifty_times_is_still_there(world: World) -> None:
    desk = await world.connect()
    queue, topology = work_of("desk")
    await desk.transport.declare(topology)
    await desk.send(message("1"), dead_letter_address(queue.name))
    name = dead_letter_queue(queue.name)
    for _ in range(50):
        assert [wire.message_id for wire in await world.peek(name)] == ["1"]
    dead = Queue(
        name=name,
        role="dead",
        arguments=next(q for q in topology.queues if q.name == name).arguments,
    )
    inbox = await desk.consume(dead, Topology(queues=(dead,)), prefetch=1)
    for _ in range(50):
        await (await inbox.next()).requeue()
    await inbox.consumption.cancel()
    await desk.transport.close()
    await world.holds(name, 1)


async def test_a_message_that_expires_in_a_queue_is_gone_and_dead_lettered_where_that_is_asked_for(
    world: World,
) -> None:
    desk = await world.connect()
    await desk.transport.declare(plain("grave")[1])
    _, topology = plain(
        "inbox", **{"x-dead-letter-exchange": "here", "x-dead-letter-routing-key": "grave"}
    )
    await desk.transport.declare(topology | plain("other")[1])
    await desk.send(message("1", role="request", expiration=200), to("inbox"))
    await desk.send(message("2", role="request", expiration=200), to("other"))
    (dead,) = await world.holds("grave", 1)
    await world.holds("inbox", 0)
    await world.holds("other", 0)
    assert (dead.message_id, dead.expiration) == ("1", None)
    assert dead.headers["x-death"][0]["reason"] == "expired"
    assert dead.headers["x-death"][0]["original-expiration"] == "200"


async def test_only_the_head_of_a_queue_expires(world: World) -> None:
    desk = await world.connect()
    await desk.transport.declare(plain("inbox")[1])
    await desk.send(message("slow", role="request", expiration=4000), to("inbox"))
    await desk.send(message("hasty", role="request", expiration=100), to("inbox"))
    await asyncio.sleep(0.5)
    assert await world.depth("inbox") == 2
    await world.holds("inbox", 0)


async def test_a_queue_that_nobody_uses_vanishes_and_its_messages_are_returned(
    world: World,
) -> None:
    desk = await world.connect()
    queue, topology = plain("brief", **{"x-expires": 1500})
    inbox = await desk.consume(queue, topology)
    await asyncio.sleep(1.8)
    assert await desk.send(message(), to("brief")) == Accepted()
    await (await inbox.next()).ack()
    await inbox.consumption.cancel()
    assert await desk.send(message(), to("brief")) == Accepted()

    async def returned() -> bool:
        return isinstance(await desk.send(message(), to("brief")), Returned)

    await until(returned, "the queue to vanish")
    assert not await world.exists("brief")


async def test_dead_letters_wait_until_their_queue_takes_them(virtual_world: World) -> None:
    desk = await virtual_world.connect()
    queue, topology = work_of("desk", "1s")
    await desk.transport.declare(topology)
    await virtual_world.limit(queue.name, 0)
    await desk.send(message("fills it"), to_jobs("desk.work.v1"))
    await desk.send(message("1"), retry_address("desk", "1s", queue.name))
    await asyncio.sleep(5)
    await virtual_world.limit(queue.name, None)
    assert {wire.message_id for wire in await virtual_world.holds(queue.name, 2, seconds=200)} == {
        "fills it",
        "1",
    }
    assert await virtual_world.depth(retry_tier("desk", "1s")) == 0


async def test_the_exchanges_of_the_bus_exist_before_anything_is_sent(world: World) -> None:
    desk = await world.connect()
    await desk.transport.declare(BASE_EXCHANGES)
    assert isinstance(await desk.send(message(), to_jobs("nobody.serves.v1")), Returned)
    assert isinstance(await desk.send(message(), dead_letter_address("nobody")), Returned)


async def test_quorum_queues_keep_the_order_of_what_was_not_handed_over(world: World) -> None:
    desk = await world.connect()
    queue, topology = quorum("inbox", **{"x-delivery-limit": 10})
    inbox = await desk.consume(queue, topology, prefetch=1)
    for number in range(3):
        await desk.send(message(str(number)), to("inbox"))
    await (await inbox.next()).requeue()
    order = []
    for _ in range(3):
        delivery = await inbox.next()
        order.append(delivery.envelope.id)
        await delivery.ack()
    assert order == ["0", "1", "2"]
