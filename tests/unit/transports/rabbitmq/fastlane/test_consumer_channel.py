import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pamqp.commands import Basic, Channel

from bus.errors import BusError, InvalidArgument
from bus.messaging.envelope import Envelope
from bus.messaging.ports.transport import Delivery
from bus.messaging.topology.addresses import Address
from bus.messaging.topology.consumer_spec import ConsumerSpec
from bus.messaging.topology.model import Queue, Topology
from bus.transports.rabbitmq.fastlane.consumer_channel import ConsumerChannel
from tests.unit.fakes import VirtualLoop
from tests.unit.transports.rabbitmq.fakes import acks, connected, written
from tests.unit.transports.rabbitmq.streams import content, method

MAX_BODY_BYTES = 10
REPLY = Address(exchange="bus.replies", routing_key="office.1", confirmed=False)
PROPERTIES = Basic.Properties(
    content_type="application/json", message_id="m-1", message_type="ledger.add.v1", app_id="office"
)


class Broker:
    """The broker's side of one consumer's channel, encoded by pamqp."""

    def __init__(self) -> None:
        self.lane, self.socket = connected()
        self.deliveries: list[Delivery] = []
        self.returned: list[tuple[str, str]] = []
        self.sent = 0
        self.channel = ConsumerChannel(
            self.lane,
            1,
            spec=ConsumerSpec(
                queue=Queue(name="office.requests.add.v1", role="requests"),
                topology=Topology(),
                prefetch=1,
                max_body_bytes=MAX_BODY_BYTES,
            ),
            on_delivery=self.deliveries.append,
            on_returned=lambda message_id, reason: self.returned.append((message_id, reason)),
            clock=lambda: 7.0,
        )

    def deliver(self, number: int = 1, *, size: int = 2) -> None:
        for _ in range(number):
            self.sent += 1
            deliver = Basic.Deliver(
                consumer_tag="c",
                delivery_tag=self.sent,
                redelivered=self.sent % 2 == 0,
                exchange="x",
                routing_key="k",
            )
            self.lane.data_received(b"".join(content(1, deliver, [size], PROPERTIES)))

    def cancel(self) -> None:
        self.lane.data_received(method(1, Basic.Cancel(consumer_tag="c", nowait=True)))

    def settled(self) -> tuple[set[int], set[int]]:
        """Return the acked tags and the requeued tags.

        The assertion fails if the broker would close the channel.
        """
        unsettled, acked, back = set(range(1, self.sent + 1)), set[int](), set[int]()
        for _, value in written(self.socket):
            if not isinstance(value, Basic.Ack | Basic.Nack):
                continue
            assert value.delivery_tag in unsettled, "unknown delivery tag"
            tags = (
                {tag for tag in unsettled if tag <= value.delivery_tag}
                if value.multiple
                else {value.delivery_tag}
            )
            unsettled -= tags
            (acked if isinstance(value, Basic.Ack) else back).update(tags)
        return acked, back


async def test_a_delivery_says_what_came() -> None:
    broker = Broker()
    broker.deliver(2)
    first, second = broker.deliveries
    assert (first.redelivered, second.redelivered) == (False, True)
    assert first.envelope == Envelope(
        id="m-1",
        type="ledger.add.v1",
        role="request",
        source="office",
        body=b"\xc0\xc1",
        queue="office.requests.add.v1",
        received=7000,
    )
    assert first.envelope is first.envelope


async def test_a_delivery_beyond_the_limit_has_no_body_and_says_why() -> None:
    broker = Broker()
    broker.deliver(size=MAX_BODY_BYTES + 1)
    (delivery,) = broker.deliveries
    envelope = delivery.envelope
    assert (envelope.id, envelope.body, envelope.unread_bytes) == ("m-1", b"", 11)
    assert envelope.fault == (
        "the message has 11 bytes, the receiver reads at most 10 bytes (BUS_MAX_MESSAGE). Store "
        "the data elsewhere and send a reference, or raise the receiver's limit."
    )
    broker.deliver(size=MAX_BODY_BYTES)
    assert broker.deliveries[1].envelope.unread_bytes is None


async def test_a_rejected_delivery_is_not_requeued_and_not_acked_later() -> None:
    broker = Broker()
    broker.deliver(2)
    first, second = broker.deliveries
    assert await first.reject()
    assert await first.ack()
    assert await second.ack()
    await asyncio.sleep(0)
    frames = [value for _, value in written(broker.socket)]
    assert [(type(each).__name__, each.delivery_tag) for each in frames] == [
        ("Reject", 1),
        ("Ack", 2),
    ]
    assert frames[0].requeue is False


async def test_acks_of_one_turn_in_any_order_are_one() -> None:
    broker = Broker()
    broker.deliver(5)
    for number in (3, 1, 4, 0, 2):
        assert await broker.deliveries[number].ack()
    await asyncio.sleep(0)
    assert list(acks(broker.socket)) == [(5, True)]


async def test_acks_beyond_one_that_is_not_done_are_single_and_never_repeated() -> None:
    broker = Broker()
    broker.deliver(4)
    for number in (0, 2, 3):
        await broker.deliveries[number].ack()
    await asyncio.sleep(0)
    assert list(acks(broker.socket)) == [(1, True), (3, False), (4, False)]
    await broker.deliveries[1].ack()
    await asyncio.sleep(0)
    assert list(acks(broker.socket))[3:] == [(2, True)]


async def test_what_is_handed_back_is_not_acked_with_its_neighbours() -> None:
    broker = Broker()
    broker.deliver(3)
    await broker.deliveries[0].ack()
    assert await broker.deliveries[1].requeue()
    await broker.deliveries[2].ack()
    await asyncio.sleep(0)
    assert broker.settled() == ({1, 3}, {2})
    assert [name for name, _ in written(broker.socket)] == ["Nack", "Ack"]


async def test_to_settle_twice_is_once() -> None:
    broker = Broker()
    broker.deliver(2)
    for delivery in broker.deliveries:
        assert await delivery.ack()
        assert await delivery.ack()
        assert await delivery.requeue()
    await asyncio.sleep(0)
    assert await broker.deliveries[0].requeue()
    await asyncio.sleep(0)
    assert broker.settled() == ({1, 2}, set())


async def test_a_reply_goes_out_before_its_ack() -> None:
    broker = Broker()
    broker.deliver()
    broker.channel.publish(
        Envelope(id="r", type="ledger.add.v1.reply", role="reply", source="office"), REPLY
    )
    await broker.deliveries[0].ack()
    await asyncio.sleep(0)
    assert [name for name, _ in written(broker.socket)] == ["Publish", "Ack"]
    assert len(broker.socket.writes) == 1


async def test_a_reply_that_comes_back_is_told_by_its_id() -> None:
    broker = Broker()
    broker.lane.data_received(
        b"".join(
            content(1, Basic.Return(312, "NO_ROUTE", "bus.replies", "office.1"), [], PROPERTIES)
        )
    )
    assert broker.returned == [("m-1", "NO_ROUTE")]


async def test_a_reply_that_amqp_cannot_say_is_an_error_of_the_caller() -> None:
    broker = Broker()
    with pytest.raises(InvalidArgument):
        broker.channel.publish(
            Envelope(id="r" * 256, type="t", role="reply", source="office"), REPLY
        )
    await asyncio.sleep(0)
    assert not broker.socket.writes


@pytest.mark.parametrize("end", ["closed by the broker", "closed by aiormq", "lost", "released"])
async def test_nothing_is_written_once_the_channel_has_ended(end: str) -> None:
    broker = Broker()
    broker.deliver(3)
    if end == "lost":
        broker.lane.connection_lost(None)
    elif end == "released":
        broker.channel.release()
    else:
        broker.lane.data_received(
            method(
                1,
                Channel.Close(406, "PRECONDITION_FAILED", 0, 0)
                if end == "closed by the broker"
                else Channel.CloseOk(),
            )
        )
    assert not await broker.deliveries[0].ack()
    assert not await broker.deliveries[1].requeue()
    with pytest.raises(BusError):
        broker.channel.publish(Envelope(id="r", type="t", role="reply", source="office"), REPLY)
    await asyncio.sleep(0)
    assert not broker.socket.writes
    assert broker.channel.ended.done()


async def test_what_was_acked_before_a_release_is_acked() -> None:
    broker = Broker()
    broker.deliver(2)
    await broker.deliveries[0].ack()
    broker.channel.release()
    await asyncio.sleep(0)
    assert list(acks(broker.socket)) == [(1, True)]


async def test_what_was_acked_before_the_broker_closed_the_channel_is_not_written() -> None:
    broker = Broker()
    broker.deliver()
    await broker.deliveries[0].ack()
    broker.lane.data_received(method(1, Channel.Close(406, "PRECONDITION_FAILED", 0, 0)))
    await asyncio.sleep(0)
    assert not broker.socket.writes


async def test_what_is_handed_back_on_a_closing_connection_is_not_an_error() -> None:
    broker = Broker()
    broker.deliver()
    broker.socket.closing = True
    assert not await broker.deliveries[0].requeue()


async def test_a_delivery_can_be_acked_after_a_cancel_and_may_still_come_again() -> None:
    broker = Broker()
    broker.deliver()
    broker.cancel()
    assert broker.channel.ended.result() == "the broker cancelled the consumer"
    assert not await broker.deliveries[0].ack()
    await asyncio.sleep(0)
    assert list(acks(broker.socket)) == [(1, True)]


async def test_a_cancelled_channel_is_idle_once_all_that_came_is_settled_and_written() -> None:
    broker = Broker()
    broker.deliver(3)
    await broker.deliveries[0].ack()
    broker.cancel()
    await broker.deliveries[1].requeue()
    await asyncio.sleep(0)
    assert (broker.channel.has_unsettled, broker.channel.idle.is_set()) == (True, False)
    await broker.deliveries[2].ack()
    assert (broker.channel.has_unsettled, broker.channel.idle.is_set()) == (True, False)
    await asyncio.sleep(0)
    assert (broker.channel.has_unsettled, broker.channel.idle.is_set()) == (False, True)
    assert broker.settled() == ({1, 3}, {2})


async def test_a_cancelled_channel_is_idle_when_the_last_that_came_is_handed_back() -> None:
    broker = Broker()
    broker.deliver()
    broker.cancel()
    await broker.deliveries[0].requeue()
    assert (broker.channel.has_unsettled, broker.channel.idle.is_set()) == (False, True)


async def test_one_that_is_never_done_lets_nothing_pile_up() -> None:
    broker = Broker()
    broker.deliver()
    for number in range(1, 1000):
        broker.deliver()
        await broker.deliveries[number].ack()
        await asyncio.sleep(0)
    assert len(broker.channel._open) == 1
    assert not broker.channel._done
    assert len(broker.settled()[0]) == 999


async def test_a_consumer_that_acks_nothing_lets_nothing_pile_up() -> None:
    broker = Broker()
    broker.deliver(1000)
    assert not broker.channel._open


DELIVER, ACK, BACK, TURN = range(4)
steps = st.lists(
    st.tuples(st.sampled_from([DELIVER, DELIVER, ACK, ACK, ACK, BACK, TURN]), st.integers(0, 30)),
    max_size=80,
)


@settings(max_examples=400, deadline=None)
@given(steps)
def test_in_any_order_exactly_what_was_settled_is_settled(steps: list[tuple[int, int]]) -> None:
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        runner.run(_any_order(steps))


async def _any_order(steps: list[tuple[int, int]]) -> None:
    broker = Broker()
    acked, back = set[int](), set[int]()
    for step, number in steps:
        if step == DELIVER:
            broker.deliver(number % 4)
        elif step == TURN:
            await asyncio.sleep(0)
            assert broker.settled() == (acked, back)
        elif broker.deliveries:
            at = number % len(broker.deliveries)
            if at + 1 not in acked | back:
                (acked if step == ACK else back).add(at + 1)
            assert await (
                broker.deliveries[at].ack() if step == ACK else broker.deliveries[at].requeue()
            )
    await asyncio.sleep(0)
    assert broker.settled() == (acked, back)
    assert len(broker.channel._open) <= len(broker.deliveries) - len(acked) - len(back)
