import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pamqp.commands import Basic, Channel, Connection

from bus.errors import ConnectionLost
from bus.transports.rabbitmq.amqp.frames import (
    HEARTBEAT,
    ack_frame,
    nack_frame,
    publish_frames,
    publish_method,
)
from bus.transports.rabbitmq.fastlane.protocol import MAX_HOLD_SECONDS
from tests.unit.transports.rabbitmq.fakes import Acks, connected
from tests.unit.transports.rabbitmq.streams import PROPERTIES, Recorder, Socket, frames_of, method

LARGE = b"x" * 40_000


async def test_what_is_sent_in_one_turn_is_written_once() -> None:
    lane, socket = connected()
    for part in (b"a", b"b", b"c"):
        lane.send(part)
    assert socket.writes == []
    await asyncio.sleep(0)
    assert socket.writes == [b"abc"]
    lane.send(b"d")
    await asyncio.sleep(0)
    assert socket.writes == [b"abc", b"d"]


async def test_acks_follow_the_replies_of_their_turn() -> None:
    lane, socket = connected()
    lane.schedule(Acks(b"ack"))
    lane.send(b"reply")
    await asyncio.sleep(0)
    assert socket.writes == [b"replyack"]


async def test_acks_alone_are_written_too() -> None:
    lane, socket = connected()
    lane.schedule(Acks(b"ack"))
    await asyncio.sleep(0)
    assert socket.writes == [b"ack"]


async def test_nothing_to_say_writes_nothing() -> None:
    lane, socket = connected()
    lane.schedule(Acks())
    await asyncio.sleep(0)
    lane.flush()
    assert socket.writes == []


async def test_a_large_one_is_written_at_once_after_what_was_sent_before() -> None:
    lane, socket = connected()
    lane.send(b"small")
    lane.send(LARGE)
    assert socket.writes == [b"small" + LARGE]
    lane.send(b"after")
    await asyncio.sleep(0)
    assert b"".join(socket.writes) == b"small" + LARGE + b"after"


async def test_while_more_comes_in_each_turn_the_answers_go_out_together() -> None:
    lane, socket = connected()
    moments = iter(range(1_000_000, 2_000_000))
    lane._now = lambda: next(moments) / 1e9  # Each call takes a nanosecond.
    for answer in (b"a", b"b", b"c"):
        lane.send(answer)
        lane.data_received(HEARTBEAT)
        await asyncio.sleep(0)
        assert socket.writes == []
    await asyncio.sleep(0)
    assert socket.writes == [b"abc"]


async def test_what_came_before_an_answer_holds_nothing_up() -> None:
    lane, socket = connected()
    lane.data_received(HEARTBEAT)
    lane.send(b"a")
    await asyncio.sleep(0)
    assert socket.writes == [b"a"]


async def test_answers_are_held_for_a_millisecond_at_most_whatever_comes_in() -> None:
    lane, socket = connected()
    moments = iter(range(1_000_000))
    lane._now = lambda: next(moments) * MAX_HOLD_SECONDS / 4
    lane.send(b"a")
    turns = 0
    while not socket.writes:
        lane.data_received(HEARTBEAT)
        await asyncio.sleep(0)
        turns += 1
        assert turns < 5
    assert socket.writes == [b"a"]


async def test_many_small_ones_are_written_before_they_are_too_many() -> None:
    lane, socket = connected()
    for _ in range(40):
        lane.send(b"x" * 1000)
    assert [len(each) for each in socket.writes] == [33_000]
    await asyncio.sleep(0)
    assert [len(each) for each in socket.writes] == [33_000, 7_000]


@pytest.mark.parametrize("end", ["lost", "closing"])
async def test_nothing_is_written_once_the_connection_goes(end: str) -> None:
    lane, socket = connected()
    lane.send(b"collected")
    lane.schedule(Acks(b"ack"))
    _end(lane, socket, end)
    with pytest.raises(ConnectionLost) as lost:
        lane.send(b"late")
    assert not lost.value.maybe_executed
    await asyncio.sleep(0)
    assert socket.writes == []


def _end(lane: object, socket: Socket, end: str) -> None:
    if end == "closing":
        socket.closing = True
    else:
        lane.connection_lost(None)  # type: ignore[attr-defined]  # a FastLaneProtocol


async def test_a_lost_connection_takes_no_claim() -> None:
    lane, _ = connected()
    lane.connection_lost(None)
    with pytest.raises(ConnectionLost):
        lane.attach(1, Acks())  # type: ignore[arg-type]  # never called


async def test_a_release_writes_what_was_sent_before_aiormq_closes_the_channel() -> None:
    lane, socket = connected()
    handler = Acks()
    lane.attach(1, handler)  # type: ignore[arg-type]  # never called
    lane.send(b"reply")
    lane.schedule(Acks(b"ack"))
    lane.detach(1, handler)  # type: ignore[arg-type]  # never called
    assert socket.writes == [b"replyack"]


# --- Back-pressure ---


async def test_a_full_socket_lets_nobody_write_until_there_is_room() -> None:
    lane, _ = connected()
    lane.pause_writing()
    waiting = asyncio.create_task(lane.wait_writable())
    await asyncio.sleep(0)
    assert not lane.writable
    assert not waiting.done()
    lane.resume_writing()
    await waiting
    assert lane.writable


async def test_an_alarm_lets_nobody_write_until_it_is_over() -> None:
    lane, _ = connected()
    lane.data_received(method(0, Connection.Blocked(reason="low on memory")))
    waiting = asyncio.create_task(lane.wait_writable())
    await asyncio.sleep(0)
    assert not lane.writable
    assert not waiting.done()
    lane.data_received(method(0, Connection.Unblocked()))
    await waiting
    assert lane.writable


async def test_who_waits_for_both_is_not_woken_by_one() -> None:
    lane, _ = connected()
    lane.pause_writing()
    lane.data_received(method(0, Connection.Blocked(reason="low on memory")))
    waiting = asyncio.create_task(lane.wait_writable())
    await asyncio.sleep(0)
    lane.data_received(method(0, Connection.Unblocked()))
    for _ in range(3):
        await asyncio.sleep(0)
    assert not waiting.done()
    lane.resume_writing()
    await waiting


async def test_nobody_waits_on_a_lost_connection() -> None:
    lane, _ = connected()
    lane.pause_writing()
    waiting = asyncio.create_task(lane.wait_writable())
    await asyncio.sleep(0)
    lane.connection_lost(None)
    await waiting


async def test_an_alarm_stops_no_acks() -> None:
    lane, socket = connected()
    lane.data_received(method(0, Connection.Blocked(reason="low on memory")))
    lane.schedule(Acks(b"ack"))
    await asyncio.sleep(0)
    assert socket.writes == [b"ack"]


# --- Frames ---

names = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)


@settings(max_examples=200, deadline=None)
@given(
    st.integers(1, 2047),
    names,
    names,
    st.booleans(),
    st.binary(max_size=200),
    st.sampled_from([4096, 50, 9]),
)
def test_a_publish_is_what_pamqp_reads(
    channel: int, exchange: str, key: str, mandatory: bool, body: bytes, frame_max: int
) -> None:
    properties = PROPERTIES[1]
    written = publish_frames(
        channel,
        publish_method(exchange, key, mandatory=mandatory),
        properties.marshal(),
        body,
        frame_max,
    )
    (_, on, publish), (_, _, header), *bodies = frames_of(written)
    assert isinstance(publish, Basic.Publish)
    assert (on, publish.exchange, publish.routing_key, publish.mandatory, publish.immediate) == (
        channel,
        exchange,
        key,
        mandatory,
        False,
    )
    assert (header.body_size, header.properties) == (len(body), properties)
    assert b"".join(part.value for _, _, part in bodies) == body
    assert all(len(raw) <= frame_max for raw, _, _ in bodies)


@given(st.integers(1, 2047), st.integers(1, 2**63 - 1), st.booleans())
def test_a_settlement_is_what_pamqp_reads(channel: int, tag: int, multiple: bool) -> None:
    ((_, on, ack),) = frames_of(ack_frame(channel, tag, multiple=multiple))
    assert isinstance(ack, Basic.Ack)
    assert (on, ack.delivery_tag, ack.multiple) == (channel, tag, multiple)
    ((_, on, nack),) = frames_of(nack_frame(channel, tag))
    assert isinstance(nack, Basic.Nack)
    assert (on, nack.delivery_tag, nack.multiple, nack.requeue) == (channel, tag, False, True)


async def test_what_waits_is_written_before_aiormq_can_answer_a_close() -> None:
    """aiormq confirms the close of a channel at once.

    A later frame on that channel would end the whole connection.
    """
    lane, socket = connected()
    lane.attach(1, Recorder(1, []))
    lane.send(b"held")
    lane.data_received(method(1, Channel.Close(403, "no", 60, 40)))
    assert socket.writes == [b"held"]
