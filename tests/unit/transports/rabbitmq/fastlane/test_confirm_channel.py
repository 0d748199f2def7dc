import asyncio
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pamqp.commands import Basic, Channel, Connection

from bus.errors import ConnectionLost, DeadlineExceeded, InvalidArgument, Unavailable
from bus.messaging.envelope import Envelope
from bus.messaging.ports.transport import Accepted, Nacked, PublishOutcome, Returned
from bus.messaging.topology.addresses import Address
from bus.transports.rabbitmq.amqp.properties import write_properties
from bus.transports.rabbitmq.fastlane.confirm_channel import (
    BLOCKED,
    WINDOW_FULL,
    ConfirmChannel,
)
from tests.unit.fakes import VirtualLoop, virtual
from tests.unit.transports.rabbitmq.fakes import connected, published
from tests.unit.transports.rabbitmq.streams import content, frames_of, method

HERE, THERE = (
    Address(exchange="bus.jobs", routing_key="here"),
    Address(exchange="bus.jobs", routing_key="there"),
)
LATER = 60.0


def message(name: str = "m") -> Envelope:
    return Envelope(id=name, type="ledger.add.v1", role="job", source="office")


class Broker:
    """The broker's side of one channel with confirms, encoded by pamqp."""

    def __init__(self, window: int = 100) -> None:
        self.lane, self.socket = connected()
        self.channel = ConfirmChannel(self.lane, 1, window=window)

    def say(self, *values: Any) -> None:
        self.lane.data_received(b"".join(method(1, value) for value in values))

    def send_back(self, envelope: Envelope, address: Address, reason: str = "NO_ROUTE") -> None:
        publish = frames_of(write_properties_frame(envelope))
        (_, _, header) = next(publish)
        back = Basic.Return(312, reason, address.exchange, address.routing_key)
        self.lane.data_received(b"".join(content(1, back, [], header.properties)))

    async def publish(
        self, name: str = "m", address: Address = HERE, within: float = LATER
    ) -> "asyncio.Task[PublishOutcome]":
        """Start a publish, and return it in flight or waiting for a slot."""
        task = asyncio.create_task(
            self.channel.publish(message(name), address, asyncio.get_running_loop().time() + within)
        )
        await turns()
        return task

    @property
    def published(self) -> int:
        return published(self.socket)


def write_properties_frame(envelope: Envelope) -> bytes:
    payload = b"\0\x3c\0\0" + bytes(8) + write_properties(envelope)
    return b"\x02\0\x01" + len(payload).to_bytes(4, "big") + payload + b"\xce"


async def turns(number: int = 5) -> None:
    for _ in range(number):
        await asyncio.sleep(0)


def nothing_left(broker: Broker) -> bool:
    channel = broker.channel
    return not (channel._pending or channel._waiting or channel._granted)


# --- Confirms ---


async def test_an_ack_accepts_its_message_alone() -> None:
    broker = Broker()
    first, second = await broker.publish("1"), await broker.publish("2")
    broker.say(Basic.Ack(2))
    assert await second == Accepted()
    assert not first.done()
    broker.say(Basic.Ack(1))
    assert await first == Accepted()
    assert nothing_left(broker)


async def test_a_multiple_ack_accepts_all_up_to_its_number() -> None:
    broker = Broker()
    tasks = [await broker.publish(str(number)) for number in range(5)]
    broker.say(Basic.Ack(3, multiple=True))
    await turns()
    assert [task.done() for task in tasks] == [True, True, True, False, False]
    broker.say(Basic.Nack(5, multiple=True))
    assert [await task for task in tasks] == [Accepted()] * 3 + [Nacked(reason="basic.nack")] * 2


async def test_confirms_of_what_was_never_sent_or_twice_are_ignored() -> None:
    broker = Broker()
    task = await broker.publish()
    broker.say(Basic.Ack(7), Basic.Ack(1), Basic.Ack(1), Basic.Nack(1), Basic.Ack(9, multiple=True))
    assert await task == Accepted()


async def test_many_in_one_turn_are_numbered_as_they_were_written() -> None:
    broker = Broker()
    tasks = [
        asyncio.create_task(
            broker.channel.publish(message(str(n)), HERE, LATER + asyncio.get_running_loop().time())
        )
        for n in range(50)
    ]
    await turns()
    assert len(broker.socket.writes) == 1
    broker.say(Basic.Nack(17), Basic.Ack(50, multiple=True))
    assert [n for n, task in enumerate(tasks, start=1) if await task != Accepted()] == [17]


async def test_what_amqp_cannot_say_is_refused_before_it_is_numbered() -> None:
    broker = Broker()
    ends = asyncio.get_running_loop().time() + LATER
    for bad in (
        message("x" * 256),
        message().replace(headers={"mine": "x" * 140_000}),
    ):
        with pytest.raises(InvalidArgument):
            await broker.channel.publish(bad, HERE, ends)
    with pytest.raises(InvalidArgument):
        await broker.channel.publish(message(), Address(exchange="x", routing_key="k" * 256), ends)
    task = await broker.publish()
    broker.say(Basic.Ack(1))
    assert await task == Accepted()


# --- Bodies that are larger than the broker's limit ---


async def test_a_body_beyond_the_brokers_limit_fails_as_too_large_and_the_rest_by_its_place() -> (
    None
):
    broker = Broker()
    before, large, after = [
        asyncio.create_task(
            broker.channel.publish(
                message(name).replace(body=bytes(size)),
                HERE,
                asyncio.get_running_loop().time() + LATER,
            )
        )
        for name, size in (("1", 5), ("2", 50), ("3", 5))
    ]
    await turns()
    text = "PRECONDITION_FAILED - message size 50 is larger than configured max size 20"
    broker.say(Channel.Close(406, text, 60, 40))
    with pytest.raises(InvalidArgument) as caught:
        await large
    assert str(caught.value) == (
        "message not sent: the message has 50 bytes, the broker accepts at most 20 bytes "
        "(max_message_size). Store the data elsewhere and send a reference."
    )
    with pytest.raises(ConnectionLost, match="not confirmed") as earlier:
        await before
    with pytest.raises(ConnectionLost, match="not sent") as later:
        await after
    assert (earlier.value.maybe_executed, later.value.maybe_executed) == (True, False)


# --- Returns ---


async def test_a_return_belongs_to_the_copy_with_its_address() -> None:
    broker = Broker()
    here, there = await broker.publish("m", HERE), await broker.publish("m", THERE)
    broker.send_back(message("m"), THERE)
    broker.say(Basic.Ack(2, multiple=True))
    assert [await here, await there] == [Accepted(), Returned(reason="NO_ROUTE")]


async def test_two_copies_with_one_address_are_returned_one_by_one() -> None:
    broker = Broker()
    first, second = await broker.publish("m"), await broker.publish("m")
    broker.send_back(message("m"), HERE, "first")
    broker.say(Basic.Ack(1))
    broker.send_back(message("m"), HERE, "second")
    broker.say(Basic.Ack(2))
    assert [await first, await second] == [Returned(reason="first"), Returned(reason="second")]


async def test_a_return_belongs_to_the_message_of_its_sender() -> None:
    """Send copies of messages of two senders that have the same id, as a worker does."""
    broker = Broker()
    others = message("m").replace(source="mail")
    first = await broker.publish("m")
    second = asyncio.create_task(
        broker.channel.publish(others, HERE, asyncio.get_running_loop().time() + LATER)
    )
    await turns()
    broker.send_back(others, HERE)
    broker.say(Basic.Ack(2, multiple=True))
    assert [await first, await second] == [Accepted(), Returned(reason="NO_ROUTE")]


async def test_several_returns_before_one_ack_for_all_are_told_apart() -> None:
    broker = Broker()
    tasks = [await broker.publish(name, address) for name in "ab" for address in (HERE, THERE)]
    broker.send_back(message("b"), HERE)
    broker.send_back(message("a"), THERE)
    broker.say(Basic.Ack(4, multiple=True))
    assert [type(await task) for task in tasks] == [Accepted, Returned, Returned, Accepted]


async def test_what_was_not_mandatory_does_not_come_back() -> None:
    broker = Broker()
    optional = Address(exchange=HERE.exchange, routing_key=HERE.routing_key, mandatory=False)
    first, second = await broker.publish("m", optional), await broker.publish("m", HERE)
    broker.send_back(message("m"), HERE)
    broker.say(Basic.Ack(2, multiple=True))
    assert [type(await first), type(await second)] == [Accepted, Returned]


async def test_the_return_of_a_publish_that_nobody_waits_for_goes_to_no_other() -> None:
    broker = Broker()
    first, second = await broker.publish("m"), await broker.publish("m")
    first.cancel()
    broker.send_back(message("m"), HERE)
    broker.say(Basic.Ack(2, multiple=True))
    assert await second == Accepted()


async def test_a_return_of_what_was_never_sent_is_ignored() -> None:
    broker = Broker()
    task = await broker.publish()
    broker.send_back(message("another"), HERE)
    broker.lane.data_received(
        b"".join(content(1, Basic.Return(312, "NO_ROUTE", "", ""), [3], Basic.Properties()))
    )
    broker.say(Basic.Ack(1))
    assert await task == Accepted()


async def test_a_nack_after_a_return_is_a_refusal() -> None:
    broker = Broker()
    task = await broker.publish()
    broker.send_back(message(), HERE)
    broker.say(Basic.Nack(1))
    assert await task == Nacked(reason="basic.nack")


# --- Window ---


async def test_no_more_are_under_way_than_the_window_holds() -> None:
    broker = Broker(window=3)
    tasks = [await broker.publish(str(number)) for number in range(10)]
    for confirmed in range(1, 8):
        assert broker.published == confirmed + 2
        broker.say(Basic.Ack(confirmed))
        await turns()
    broker.say(Basic.Ack(10, multiple=True))
    assert [await task for task in tasks] == [Accepted()] * 10
    assert nothing_left(broker)


async def test_one_ack_for_all_lets_as_many_follow() -> None:
    broker = Broker(window=4)
    tasks = [await broker.publish(str(number)) for number in range(12)]
    broker.say(Basic.Ack(4, multiple=True))
    await turns()
    assert broker.published == 8
    broker.say(Basic.Ack(5), Basic.Ack(6), Basic.Ack(7), Basic.Ack(8))
    await turns()
    assert broker.published == 12
    broker.say(Basic.Ack(12, multiple=True))
    await asyncio.gather(*tasks)


async def test_who_waited_longest_is_next_and_who_comes_later_does_not_push_in() -> None:
    broker = Broker(window=1)
    tasks = [await broker.publish("0"), await broker.publish("1"), await broker.publish("2")]
    broker.say(Basic.Ack(1))
    tasks.append(
        asyncio.create_task(
            broker.channel.publish(message("3"), HERE, asyncio.get_running_loop().time() + LATER)
        )
    )
    for number in range(2, 5):
        await turns()
        assert broker.published == number
        broker.say(Basic.Ack(number))
    await asyncio.gather(*tasks)
    ids = [
        value.properties.message_id
        for _, _, value in frames_of(b"".join(broker.socket.writes))
        if type(value).__name__ == "ContentHeader"
    ]
    assert ids == ["0", "1", "2", "3"]


async def test_a_waiter_that_was_woken_and_cancelled_passes_its_place_on() -> None:
    broker = Broker(window=1)
    first, second, third = [await broker.publish(str(number)) for number in range(3)]
    broker.say(Basic.Ack(1))
    second.cancel()
    await turns()
    assert second.cancelled()
    assert broker.published == 2
    broker.say(Basic.Ack(2))
    assert [await first, await third] == [Accepted(), Accepted()]
    assert nothing_left(broker)


async def test_two_that_are_cancelled_in_one_turn_give_back_one_place() -> None:
    broker = Broker(window=1)
    broker.lane.data_received(method(0, Connection.Blocked(reason="low on memory")))
    holder, waiter = await broker.publish("0"), await broker.publish("1")
    holder.cancel()
    waiter.cancel()
    await turns()
    assert nothing_left(broker)


async def test_a_waiter_that_is_cancelled_leaves_the_line() -> None:
    broker = Broker(window=1)
    first, second, third = [await broker.publish(str(number)) for number in range(3)]
    second.cancel()
    await turns()
    assert len(broker.channel._waiting) == 1
    broker.say(Basic.Ack(1), Basic.Ack(2))
    await turns()
    broker.say(Basic.Ack(2))
    assert [await first, await third] == [Accepted(), Accepted()]
    assert nothing_left(broker)


@virtual
async def test_waiters_whose_time_is_up_were_not_sent_and_leave_the_line() -> None:
    broker = Broker(window=1)
    first = await broker.publish("0")
    late = [await broker.publish(str(number), within=1) for number in range(1, 100)]
    results = await asyncio.gather(*late, return_exceptions=True)
    assert {type(result) for result in results} == {Unavailable}
    assert {str(result) for result in results} == {WINDOW_FULL}
    assert not broker.channel._waiting
    broker.say(Basic.Ack(1))
    assert await first == Accepted()
    assert broker.published == 1
    assert nothing_left(broker)


@virtual
async def test_a_publish_that_waits_during_an_alarm_names_the_broker_and_not_the_window() -> None:
    broker = Broker(window=1)
    first = await broker.publish("0", within=5)
    broker.lane.data_received(method(0, Connection.Blocked(reason="low on memory")))
    for waiting in [await broker.publish(name, within=1) for name in ("1", "2")]:
        with pytest.raises(Unavailable) as caught:
            await waiting
        assert str(caught.value) == BLOCKED
    broker.say(Basic.Ack(1))
    assert await first == Accepted()
    with pytest.raises(Unavailable) as caught:
        await (await broker.publish("3", within=1))
    assert str(caught.value) == BLOCKED
    assert nothing_left(broker)


async def test_a_cancelled_publish_keeps_its_place_until_the_broker_has_spoken() -> None:
    broker = Broker(window=1)
    first, second = await broker.publish("0"), await broker.publish("1")
    first.cancel()
    await turns()
    assert broker.published == 1
    broker.say(Basic.Ack(1))
    await turns()
    broker.say(Basic.Ack(2))
    assert await second == Accepted()
    assert nothing_left(broker)
    assert not broker.channel._deadlines


# --- Alarms and full sockets ---


@virtual
async def test_during_an_alarm_nothing_is_sent_and_the_caller_hears_it() -> None:
    broker = Broker()
    broker.lane.data_received(method(0, Connection.Blocked(reason="low on memory")))
    task = await broker.publish(within=2)
    with pytest.raises(Unavailable) as unavailable:
        await task
    assert not unavailable.value.maybe_executed
    broker.lane.data_received(method(0, Connection.Unblocked()))
    await turns()
    assert broker.published == 0
    assert nothing_left(broker)


async def test_after_an_alarm_what_waited_is_sent_within_the_window() -> None:
    broker = Broker(window=2)
    broker.lane.data_received(method(0, Connection.Blocked(reason="low on memory")))
    tasks = [await broker.publish(str(number)) for number in range(4)]
    broker.lane.data_received(method(0, Connection.Unblocked()))
    await turns()
    assert broker.published == 2
    broker.say(Basic.Ack(2, multiple=True))
    await turns()
    broker.say(Basic.Ack(4, multiple=True))
    assert await asyncio.gather(*tasks) == [Accepted()] * 4


async def test_a_full_socket_holds_publishes_back() -> None:
    broker = Broker()
    broker.lane.pause_writing()
    task = await broker.publish()
    assert broker.published == 0
    broker.lane.resume_writing()
    await turns()
    broker.say(Basic.Ack(1))
    assert await task == Accepted()


# --- Ends ---


@virtual
async def test_a_confirm_that_does_not_come_in_time_leaves_the_outcome_open() -> None:
    broker = Broker(window=1)
    task = await broker.publish(within=1)
    with pytest.raises(DeadlineExceeded) as late:
        await task
    assert late.value.maybe_executed
    broker.say(Basic.Ack(1))
    after = await broker.publish()
    broker.say(Basic.Ack(2))
    assert await after == Accepted()
    assert nothing_left(broker)


@pytest.mark.parametrize("end", ["closed by the broker", "lost", "released", "closed by aiormq"])
async def test_the_end_of_the_channel_is_told_to_all_who_wait(end: str) -> None:
    broker = Broker(window=1)
    under_way, waiting = await broker.publish("0"), await broker.publish("1")
    if end == "lost":
        broker.lane.connection_lost(None)
    elif end == "released":
        broker.channel.release()
    else:
        broker.say(
            Channel.Close(404, "NOT_FOUND - no exchange", 60, 40)
            if end == "closed by the broker"
            else Channel.CloseOk()
        )
    with pytest.raises(ConnectionLost) as lost:
        await under_way
    assert lost.value.maybe_executed
    with pytest.raises(Unavailable) as unsent:
        await waiting
    assert not unsent.value.maybe_executed
    assert not broker.channel.alive
    with pytest.raises(Unavailable, match="not sent"):
        await broker.channel.publish(message("2"), HERE, asyncio.get_running_loop().time() + LATER)
    assert broker.published == 1
    assert nothing_left(broker)


async def test_what_the_broker_said_at_the_close_is_known() -> None:
    broker = Broker()
    broker.say(Channel.Close(404, "NOT_FOUND - no exchange", 60, 40))
    assert broker.channel.ended.result() == "the broker closed the channel: NOT_FOUND - no exchange"


async def test_a_release_of_a_channel_that_has_ended_is_nothing() -> None:
    broker = Broker()
    broker.channel.release()
    broker.channel.release()
    broker.lane.connection_lost(None)
    assert broker.channel.ended.result() == "the channel was closed"


async def test_a_publish_on_a_closing_connection_takes_no_place() -> None:
    broker = Broker(window=1)
    broker.socket.closing = True
    with pytest.raises(ConnectionLost) as lost:
        await (await broker.publish())
    assert not lost.value.maybe_executed
    assert nothing_left(broker)


# --- Random order ---

PUBLISH, CANCEL, ACK, ACK_ALL, BLOCK, UNBLOCK, TURN = range(7)
steps = st.lists(
    st.tuples(
        st.sampled_from([PUBLISH] * 4 + [CANCEL, CANCEL, ACK, ACK, ACK_ALL, BLOCK, UNBLOCK, TURN]),
        st.integers(0, 9),
    ),
    max_size=40,
)


@settings(max_examples=600, deadline=None)
@given(steps, st.integers(1, 3))
@example([(PUBLISH, 0), (PUBLISH, 1), (BLOCK, 0), (TURN, 1), (CANCEL, 0), (CANCEL, 1)], 1)
def test_in_any_order_the_window_holds_and_nobody_is_forgotten(
    steps: list[tuple[int, int]], window: int
) -> None:
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        runner.run(_any_order(steps, window))


async def _any_order(steps: list[tuple[int, int]], window: int) -> None:
    broker = Broker(window)
    tasks: list[asyncio.Task[PublishOutcome]] = []
    for step, number in steps:
        if step == PUBLISH:
            ends = asyncio.get_running_loop().time() + LATER
            tasks.append(
                asyncio.create_task(broker.channel.publish(message(str(number)), HERE, ends))
            )
        elif step == CANCEL and tasks:
            tasks[number % len(tasks)].cancel()
        elif step == ACK and broker.channel._pending:
            pending = list(broker.channel._pending)
            broker.say(Basic.Ack(pending[number % len(pending)]))
        elif step == ACK_ALL:
            broker.say(Basic.Ack(broker.channel._sent, multiple=True))
        elif step in (BLOCK, UNBLOCK):
            broker.lane.data_received(
                method(
                    0, Connection.Blocked(reason="low") if step == BLOCK else Connection.Unblocked()
                )
            )
        elif step == TURN:
            await turns(number % 3)
        assert len(broker.channel._pending) + broker.channel._granted <= window
        assert broker.channel._granted >= 0
    broker.lane.data_received(method(0, Connection.Unblocked()))
    for _ in range(len(tasks) + 1):
        await turns()
        broker.say(Basic.Ack(broker.channel._sent, multiple=True))
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert all(isinstance(result, Accepted | asyncio.CancelledError) for result in results)
    assert nothing_left(broker)
    assert not broker.channel._deadlines
