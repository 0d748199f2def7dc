"""Tests of the port: the outcome of a send."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from bus.errors import ConnectionLost, DeadlineExceeded, InvalidArgument, Unavailable
from bus.messaging.ports.transport import Accepted, Nacked, PublishOutcome, Returned
from bus.messaging.topology.declarations import BASE_EXCHANGES
from bus.messaging.topology.model import Binding, Queue, Topology
from bus.messaging.topology.names import EVENTS
from tests.conformance.ports import narrow, plain, quorum, to
from tests.conformance.world import World, message, stays, until


@pytest.mark.parametrize("kind", [plain, quorum], ids=["classic", "quorum"])
async def test_a_confirmed_message_that_a_queue_takes_is_accepted(world: World, kind: type) -> None:
    desk = await world.connect()
    _, topology = kind("inbox")
    await desk.transport.declare(topology)
    assert await desk.send(message("1"), to("inbox")) == Accepted()
    assert [wire.message_id for wire in await world.holds("inbox", 1)] == ["1"]


async def test_a_mandatory_message_that_no_queue_takes_is_returned(world: World) -> None:
    desk = await world.connect()
    await desk.transport.declare(plain("inbox")[1])
    outcome = await desk.send(message(), to("nowhere"))
    assert isinstance(outcome, Returned)
    assert "NO_ROUTE" in outcome.reason


async def test_a_message_that_need_not_arrive_is_accepted_without_a_queue(world: World) -> None:
    desk = await world.connect()
    await desk.transport.declare(plain("inbox")[1])
    assert await desk.send(message(), to("nowhere", mandatory=False)) == Accepted()


async def test_two_messages_with_one_id_in_flight_are_told_apart(world: World) -> None:
    desk = await world.connect()
    await desk.transport.declare(quorum("inbox")[1])
    for _ in range(20):
        outcomes = await asyncio.gather(
            desk.send(message("twin"), to("inbox")),
            desk.send(message("twin"), to("nowhere")),
            desk.send(message("twin"), to("inbox")),
        )
        assert [type(outcome) for outcome in outcomes] == [Accepted, Returned, Accepted]
    await world.holds("inbox", 40)


@pytest.mark.parametrize("kind", [plain, quorum], ids=["classic", "quorum"])
async def test_a_full_queue_refuses(world: World, kind: type) -> None:
    desk = await world.connect()
    _, topology = kind("narrow", **narrow(2))
    await desk.transport.declare(topology)
    outcome: PublishOutcome = Accepted()

    async def refused() -> bool:
        nonlocal outcome
        outcome = await desk.send(message(), to("narrow"))
        return isinstance(outcome, Nacked)

    await until(refused, "a refusal")
    assert isinstance(outcome, Nacked)
    assert outcome.reason
    assert 2 <= await world.depth("narrow") <= 5  # a quorum queue refuses late


async def test_a_queue_that_refused_takes_messages_again_when_there_is_room(world: World) -> None:
    desk = await world.connect()
    queue, topology = quorum("narrow", **narrow(5))
    await desk.transport.declare(topology)

    async def refused() -> bool:
        return isinstance(await desk.send(message(), to("narrow")), Nacked)

    async def accepted() -> bool:
        return not await refused()

    await until(refused, "a refusal")
    inbox = await desk.consume(queue, topology, prefetch=1)
    for _ in range(3):
        await (await inbox.next()).ack()
    await until(accepted, "room")


async def test_an_unconfirmed_message_that_no_queue_takes_reaches_the_observer_by_its_id(
    world: World,
) -> None:
    desk = await world.connect()
    await desk.transport.declare(plain("inbox")[1])
    await desk.send(message("lost", role="request"), to("nowhere", confirmed=False))
    await desk.send(message("found", role="request"), to("inbox", confirmed=False))
    await until(lambda: desk.ear.returns, "the return")
    await world.holds("inbox", 1)
    assert desk.ear.returns == ["lost"]


async def test_a_topic_exchange_matches_words(world: World) -> None:
    patterns = {
        "one": "shop.*.v1",
        "any": "shop.#",
        "all": "#",
        "exact": "shop.sold.v1",
        "other": "shop.sold.v2",
        "middle": "#.eu.*",
    }
    desk = await world.connect()
    await desk.transport.declare(
        BASE_EXCHANGES
        | Topology(
            queues=tuple(Queue(name=name, role="events") for name in patterns),
            bindings=tuple(
                Binding(exchange=EVENTS, queue=name, routing_key=key)
                for name, key in patterns.items()
            ),
        )
    )
    for key in ("shop.sold.v1", "shop.sold.eu.v1", "shop"):
        address = to(key)
        assert (
            await desk.send(message(key), type(address)(exchange=EVENTS, routing_key=key))
            == Accepted()
        )
    found = {
        name: sorted(wire.message_id or "" for wire in await world.peek(name)) for name in patterns
    }
    assert found == {
        "one": ["shop.sold.v1"],
        "any": ["shop", "shop.sold.eu.v1", "shop.sold.v1"],
        "all": ["shop", "shop.sold.eu.v1", "shop.sold.v1"],
        "exact": ["shop.sold.v1"],
        "other": [],
        "middle": ["shop.sold.eu.v1"],
    }


async def test_a_body_of_a_mebibyte_arrives_whole(world: World) -> None:
    desk = await world.connect()
    queue, topology = quorum("inbox")
    inbox = await desk.consume(queue, topology)
    body = b'"' + bytes(range(35, 91)) * (1024 * 1024 // 56) + b'"'
    assert await desk.send(message(body=body), to("inbox"), timeout=20) == Accepted()
    assert (await inbox.next()).envelope.body == body


async def test_a_body_that_the_broker_would_not_take_is_refused_before_it_is_sent(
    world: World,
) -> None:
    desk = await world.connect()
    await desk.transport.declare(plain("inbox")[1])
    with pytest.raises(InvalidArgument, match="BUS_MAX_MESSAGE"):
        await desk.send(message(body=b" " * (16 * 1024 * 1024 + 1)), to("inbox"))
    assert await desk.send(message("small"), to("inbox")) == Accepted()


async def test_a_message_that_amqp_cannot_encode_is_refused_before_it_is_sent(
    world: World,
) -> None:
    desk = await world.connect()
    await desk.transport.declare(plain("inbox")[1])
    for wrong in (
        message("i" * 256),
        message(in_reply_to="i" * 256),
        message(headers={"number": 2**63}),
        message(headers={"text": "\ud800"}),
        message(headers={"text": "t" * 131_072}),
    ):
        with pytest.raises(InvalidArgument):
            await desk.send(wrong, to("inbox"))
    with pytest.raises(InvalidArgument):
        await desk.send(message(), to("q" * 256))
    assert await desk.send(message("small"), to("inbox")) == Accepted()


async def test_a_send_while_the_broker_is_down_ends_by_its_timeout(world: World) -> None:
    desk = await world.connect()
    await desk.transport.declare(plain("inbox")[1])
    await world.stop_broker()
    began = asyncio.get_running_loop().time()
    with pytest.raises(Unavailable) as caught:
        await desk.send(message(), to("inbox"), timeout=0.5)
    assert 0.45 <= asyncio.get_running_loop().time() - began < 15
    assert not caught.value.maybe_executed or isinstance(caught.value, ConnectionLost)
    with pytest.raises(Unavailable, match="not sent") as second:
        await desk.send(message(), to("inbox"), timeout=0.3)
    assert not second.value.maybe_executed


async def test_a_send_that_waits_for_the_broker_goes_out_when_it_is_back(world: World) -> None:
    desk = await world.connect()
    await desk.transport.declare(quorum("inbox")[1])
    await world.stop_broker()
    await until(lambda: desk.ear.losses, "the loss to be noticed")
    sending = asyncio.create_task(desk.send(message("1"), to("inbox"), timeout=30))
    await stays(lambda: not sending.done(), "waiting")
    await world.start_broker()
    assert await sending == Accepted()
    await world.holds("inbox", 1)


async def test_a_confirm_that_got_lost_leaves_the_outcome_open(world: World) -> None:
    desk = await world.connect()
    await desk.transport.declare(quorum("inbox")[1])
    await desk.send(message(), to("nowhere", mandatory=False))
    await world.lose_confirms(desk)
    sending = asyncio.create_task(desk.send(message("1"), to("inbox"), timeout=30))
    await world.holds("inbox", 1)
    await stays(lambda: not sending.done(), "waiting for the confirm")
    await world.drop_connections(desk)
    with pytest.raises(ConnectionLost) as caught:
        await sending
    assert caught.value.maybe_executed
    assert await desk.send(message("1"), to("inbox"), timeout=30) == Accepted()
    assert [wire.message_id for wire in await world.holds("inbox", 2)] == ["1", "1"]


async def test_a_confirm_that_does_not_come_in_time_is_a_deadline_with_the_outcome_open(
    world: World,
) -> None:
    desk = await world.connect()
    await desk.transport.declare(quorum("inbox")[1])
    await desk.send(message(), to("nowhere", mandatory=False))
    await world.lose_confirms(desk)
    with pytest.raises(DeadlineExceeded) as caught:
        await desk.send(message("1"), to("inbox"), timeout=0.5)
    assert caught.value.maybe_executed
    await world.holds("inbox", 1)
    # Without it the close would wait for an answer that is lost, too.
    await world.drop_connections(desk)


async def test_an_alarm_holds_publishers_until_their_timeout_while_deliveries_and_acks_flow(
    world: World,
) -> None:
    desk, reader = await world.connect("desk"), await world.connect("reader")
    queue, topology = quorum("inbox")
    await desk.transport.declare(topology)
    for number in range(4):
        await desk.send(message(str(number)), to("inbox"))
    await world.block()
    try:
        await _until_blocked(desk.send)
        with pytest.raises(Unavailable, match="not sent") as caught:
            await desk.send(message("held"), to("inbox"), timeout=0.3)
        assert not caught.value.maybe_executed
        inbox = await reader.consume(queue, topology, prefetch=1)
        for _ in range(4):
            assert await (await inbox.next()).ack()
    finally:
        await world.unblock()
    assert await desk.send(message("after"), to("inbox"), timeout=30) == Accepted()


async def test_an_alarm_leaves_the_acks_of_who_is_blocked_flowing(world: World) -> None:
    desk = await world.connect()
    queue, topology = quorum("inbox")
    await desk.transport.declare(topology)
    for number in range(4):
        await desk.send(message(str(number)), to("inbox"))
    await world.block()
    try:
        await _until_blocked(desk.send)
        inbox = await desk.consume(queue, topology, prefetch=1)
        for _ in range(4):
            assert await (await inbox.next()).ack()
    finally:
        await world.unblock()


async def _until_blocked(send: Callable[..., Awaitable[PublishOutcome]]) -> None:
    """Publish until the client is blocked: RabbitMQ reports an alarm only after a publish."""

    async def blocked() -> bool:
        try:
            await send(message("probe", body=b"null"), to("nowhere", mandatory=False), timeout=0.3)
        except (Unavailable, DeadlineExceeded):
            return True
        return False

    await until(blocked, "the alarm")
