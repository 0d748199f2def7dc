"""Tests of the port: deliveries and redeliveries."""

import asyncio

import pytest

from bus.errors import NotFound
from bus.messaging.ports.transport import Accepted
from bus.messaging.topology.consumer_spec import ConsumerSpec
from tests.conformance.ports import plain, quorum, to
from tests.conformance.world import World, message, stays, until

BOTH = pytest.mark.parametrize("kind", [plain, quorum], ids=["classic", "quorum"])


@BOTH
async def test_a_message_arrives_as_it_was_sent(world: World, kind: type) -> None:
    desk = await world.connect()
    queue, topology = kind("inbox")
    inbox = await desk.consume(queue, topology)
    sent = message(
        "1",
        role="event",
        body='{"name": "Zoë"}'.encode(),
        timestamp=1_700_000_000,
        correlation_id="c",
        causation_id="0",
        traceparent="00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        tracestate="a=1",
        expires=1_900_000_000_000,
        attempt=3,
        reply_to="desk.replies.1",
        headers={"dead-code": "internal", "mine": 7},
    )
    await desk.send(sent, to("inbox"))
    arrived = (await inbox.next()).envelope
    assert abs((arrived.received or 0) / 1000 - world.clock()) < 5
    assert arrived == sent.replace(received=arrived.received, queue="inbox")


@BOTH
async def test_prefetch_bounds_what_is_unacked(world: World, kind: type) -> None:
    desk = await world.connect()
    queue, topology = kind("inbox")
    inbox = await desk.consume(queue, topology, prefetch=3)
    for number in range(8):
        await desk.send(message(str(number)), to("inbox"))
    first = [*await inbox.holds(3)]
    await stays(lambda: len(inbox.deliveries) == 3, "three unacked")
    assert await first[0].ack()
    await inbox.holds(4)
    await stays(lambda: len(inbox.deliveries) == 4, "three unacked")
    assert inbox.ids == ["0", "1", "2", "3"]


@BOTH
async def test_an_acked_message_is_gone_and_a_requeued_one_comes_back_marked(
    world: World, kind: type
) -> None:
    desk = await world.connect()
    queue, topology = kind("inbox")
    inbox = await desk.consume(queue, topology, prefetch=1)
    await desk.send(message("1"), to("inbox"))
    first = await inbox.next()
    assert not first.redelivered
    assert await first.requeue()
    again = await inbox.next()
    assert (again.envelope.id, again.redelivered) == ("1", True)
    assert await again.ack()
    await stays(lambda: not inbox.deliveries, "empty")
    assert await world.depth("inbox") == 0


async def test_without_acks_the_broker_forgets_a_message_as_it_sends_it(world: World) -> None:
    desk = await world.connect()
    queue, topology = plain("inbox")
    inbox = await desk.consume(queue, topology, acks=False)
    for number in range(5):
        await desk.send(message(str(number)), to("inbox"))
    await inbox.holds(5)
    await world.drop_connections(desk)
    await until(lambda: inbox.consumption.ready, "the consumer")
    await stays(lambda: len(inbox.deliveries) == 5, "nothing comes twice")


@BOTH
async def test_consumers_of_one_queue_share_its_messages(world: World, kind: type) -> None:
    desk = await world.connect()
    queue, topology = kind("inbox")
    inboxes = [await desk.consume(queue, topology, prefetch=2) for _ in range(2)]
    for number in range(4):
        await desk.send(message(str(number)), to("inbox"))
    for inbox in inboxes:
        await inbox.holds(2)
    assert sorted(inboxes[0].ids + inboxes[1].ids) == ["0", "1", "2", "3"]


async def test_a_cancelled_consumer_gets_nothing_more_and_may_still_ack(world: World) -> None:
    desk = await world.connect()
    queue, topology = quorum("inbox")
    inbox = await desk.consume(queue, topology, prefetch=1)
    await desk.send(message("1"), to("inbox"))
    held = await inbox.next()
    await inbox.consumption.cancel()
    assert not inbox.consumption.ready
    assert held.is_open
    await desk.send(message("2"), to("inbox"))
    assert await held.ack()
    await stays(lambda: not inbox.deliveries, "no delivery")
    assert [wire.message_id for wire in await world.holds("inbox", 1)] == ["2"]


async def test_a_closed_consumer_gives_back_what_is_unacked_and_what_was_acked_stays_gone(
    world: World,
) -> None:
    desk = await world.connect()
    queue, topology = quorum("inbox", **{"x-delivery-limit": 10})
    inbox = await desk.consume(queue, topology)
    for number in range(3):
        await desk.send(message(str(number)), to("inbox"))
    acked, *others = await inbox.holds(3)
    assert await acked.ack()
    await inbox.consumption.close()
    assert not inbox.consumption.ready
    assert not await others[0].ack()
    assert not await others[1].requeue()
    assert [wire.message_id for wire in await world.holds("inbox", 2)] == ["1", "2"]
    await desk.send(message("3"), to("inbox"))
    await stays(lambda: len(inbox.deliveries) == 3, "no further delivery")
    assert await world.consumers("inbox") == 0


async def test_a_consumer_can_be_closed_after_it_was_cancelled_and_closed_twice(
    world: World,
) -> None:
    desk = await world.connect()
    queue, topology = quorum("inbox")
    inbox = await desk.consume(queue, topology)
    await desk.send(message("1"), to("inbox"))
    await inbox.holds(1)
    await inbox.consumption.cancel()
    await inbox.consumption.close()
    await inbox.consumption.close()
    assert [wire.message_id for wire in await world.holds("inbox", 1)] == ["1"]
    await world.drop_connections(desk)
    again = await desk.consume(queue, topology)
    assert (await again.next()).envelope.id == "1"
    assert not inbox.consumption.ready


async def test_a_consumer_that_is_closed_while_it_registers_takes_no_other_along(
    world: World,
) -> None:
    desk = await world.connect()
    queue, topology = quorum("inbox")
    other, its_topology = plain("other")
    inbox = await desk.consume(queue, topology, prefetch=1)
    await desk.send(message("1"), to("inbox"))
    held = await inbox.next()
    for step in range(20):
        spec = ConsumerSpec(queue=other, topology=its_topology, prefetch=1)
        brief = await desk.transport.consume(spec, lambda _: None)
        await asyncio.sleep(step * 0.004)
        await brief.close()
    assert inbox.consumption.ready
    assert await held.ack()
    await until(lambda: inbox.consumption.ready, "the other")
    await stays(lambda: not inbox.deliveries, "nothing comes twice")
    assert await world.consumers("other") == 0


async def test_the_depth_of_a_queue_is_what_is_ready_in_it(world: World) -> None:
    desk = await world.connect()
    queue, topology = quorum("inbox")
    await desk.transport.declare(topology)
    assert await desk.transport.depth("inbox") == 0
    for number in range(3):
        await desk.send(message(str(number)), to("inbox"))
    assert await desk.transport.depth("inbox") == 3
    inbox = await desk.consume(queue, topology, prefetch=1)
    await inbox.holds(1)
    assert await desk.transport.depth("inbox") == 2
    with pytest.raises(NotFound, match="nowhere"):
        await desk.transport.depth("nowhere")


async def test_what_the_broker_notes_is_told_beside_the_envelope(world: World) -> None:
    desk = await world.connect()
    queue, topology = quorum("inbox")
    dying: dict[str, str | int] = {
        "x-message-ttl": 1,
        "x-dead-letter-exchange": "here",
        "x-dead-letter-routing-key": "inbox",
    }
    brief, theirs = plain("brief", **dying)
    inbox = await desk.consume(queue, topology | theirs)
    await desk.send(message("1", headers={"mine": "kept"}), to(brief.name))
    delivery = await inbox.next()
    (death,) = delivery.broker_headers["x-death"]
    assert (death["queue"], death["reason"]) == ("brief", "expired")
    assert delivery.envelope.headers == {"mine": "kept"}
    assert "mine" not in delivery.broker_headers


async def test_a_stale_ack_says_so_and_the_message_comes_again(world: World) -> None:
    desk = await world.connect()
    queue, topology = quorum("inbox")
    inbox = await desk.consume(queue, topology, prefetch=1)
    await desk.send(message("1"), to("inbox"))
    stale = await inbox.next()
    assert stale.is_open
    await world.drop_connections(desk)
    again = await inbox.next()
    assert (again.envelope.id, again.redelivered) == ("1", True)
    assert (stale.is_open, again.is_open) == (False, True)
    assert not await stale.ack()
    assert not await stale.requeue()
    assert await again.ack()
    await until(lambda: inbox.consumption.ready, "the consumer")
    assert await world.depth("inbox") == 0


async def test_a_second_settlement_of_a_delivery_harms_nobody(world: World) -> None:
    desk = await world.connect()
    queue, topology = quorum("inbox")
    inbox = await desk.consume(queue, topology, prefetch=2)
    await desk.send(message("1"), to("inbox"))
    delivery = await inbox.next()
    assert await delivery.ack()
    await delivery.ack()
    await delivery.requeue()
    await desk.send(message("2"), to("inbox"))
    assert await (await inbox.next()).ack()
    assert inbox.consumption.ready


async def test_deliveries_never_come_inside_the_send_that_caused_them(world: World) -> None:
    desk = await world.connect()
    queue, topology = plain("inbox")
    inbox = await desk.consume(queue, topology)
    sending = asyncio.create_task(desk.send(message("1"), to("inbox", confirmed=False)))
    assert not inbox.deliveries
    await sending
    await inbox.holds(1)


async def test_a_reply_sent_by_way_of_a_delivery_arrives_before_its_ack_takes_effect(
    world: World,
) -> None:
    desk = await world.connect()
    queue, topology = plain("inbox")
    replies, their_topology = plain("replies")
    inbox = await desk.consume(queue, topology, prefetch=1)
    answers = await desk.consume(replies, their_topology)
    await desk.send(message("1"), to("inbox"))
    delivery = await inbox.next()
    await desk.send(message("answer", role="reply"), to("replies", confirmed=False), via=delivery)
    assert await delivery.ack()
    assert (await answers.next()).envelope.id == "answer"


async def test_a_reply_by_way_of_a_delivery_whose_channel_is_gone_goes_out_all_the_same(
    world: World,
) -> None:
    desk = await world.connect()
    queue, topology = quorum("inbox")
    inbox = await desk.consume(queue, topology, prefetch=1)
    await desk.send(message("1"), to("inbox"))
    stale = await inbox.next()
    await world.drop_connections(desk)
    await until(lambda: desk.ear.losses, "the loss to be noticed")
    await (await inbox.next()).ack()
    assert await desk.send(message("answer"), to("inbox"), via=stale, timeout=30) == Accepted()
    assert (await inbox.next()).envelope.id == "answer"
