import random
from struct import pack

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pamqp.commands import Basic

from tests.unit.transports.rabbitmq.streams import (
    ACK,
    DELIVER,
    PROPERTIES,
    RETURN,
    Line,
    StillLoop,
    content,
    cut,
    happening,
    listen,
    method,
    streams,
)

GOOD = b"".join([*happening(1, DELIVER, 3, 1), *happening(1, ACK, 1, 1)])
HEAD, *PARTS = happening(1, DELIVER, 6, 1)
HEADER, BODY = PARTS[0], PARTS[1]
ONE = happening(1, DELIVER, 3, 1)


def framed(kind: int, channel: int, payload: bytes, end: bytes = b"\xce") -> bytes:
    return pack(">BHI", kind, channel, len(payload)) + payload + end


HALF_GOOD = GOOD[:-1] + b"\xcd"
BAD = {
    "a bad end": (HALF_GOOD, "no end octet"),
    "a bad end of what aiormq would read": (
        framed(1, 0, b"\0\x0a\0\x0b", b"\0"),
        "no end octet",
    ),
    "a bad end of a header": (HEAD + HEADER[:-1] + b"\0" + b"".join(PARTS[1:]), "no end octet"),
    "a bad end of a header before a whole body": (
        ONE[0] + ONE[1][:-1] + b"\0" + ONE[2],
        "no end octet",
    ),
    "a bad end of a body": (HEAD + HEADER + BODY[:-1] + b"\0", "no end octet"),
    "too large": (
        pack(">BHI", 3, 1, 131073),
        "a frame has 131073 bytes, the limit is 131072 bytes",
    ),
    "a header too large": (
        HEAD + pack(">BHI", 2, 1, 200_000),
        "a frame has 200000 bytes, the limit is 131072 bytes",
    ),
    "too large for anybody": (b"\xff" * 8, "a frame has 4294967295 bytes"),
    "a protocol header": (b"AMQP\0\0\x09\x01", "a protocol header"),
    "another protocol's header": (b"AMQP\x03\x01\0\0", "a protocol header"),
    "a body without a header": (HEAD + BODY, "a frame of type 3"),
    "two headers": (HEAD + HEADER + HEADER, "a frame of type 2"),
    "a short header": (HEAD + framed(2, 1, b"\0\x3c\0\0" + b"\0" * 9), "a frame of type 2"),
    "a heartbeat in a message": (HEAD + framed(8, 1, b""), "a frame of type 8"),
    "more body than said": (HEAD + HEADER + framed(3, 1, b"x" * 999), "a frame of type 3"),
    "a delivery within a delivery": (HEAD + HEADER + HEAD, "within the content of another message"),
    "a whole delivery within a delivery": (HEAD + GOOD, "within the content of another message"),
    "a return within a delivery": (
        HEAD + happening(1, RETURN, 3, 1)[0],
        "within the content of another message",
    ),
    "a delivery without a tag": (framed(1, 1, b"\0\x3c\0\x3c\xffctag"), "no delivery tag"),
    "a delivery without anything": (framed(1, 1, b"\0\x3c\0\x3c"), "no delivery tag"),
    "a short return": (framed(1, 1, b"\0\x3c\0\x32\x01\x38\x02NO"), "could not be read"),
    "a return that ends in a name": (
        framed(1, 1, b"\0\x3c\0\x32\x01\x38\x02NO\x01x\x05k"),
        "shorter than its fields",
    ),
    "a short confirm": (framed(1, 1, b"\0\x3c\0\x50\0\0"), "a confirm has 6 bytes, not 13"),
    "a method without a method": (framed(1, 1, b"\0\x3c"), "no method id"),
}


@pytest.mark.parametrize(("bad", "why"), BAD.values(), ids=BAD)
def test_a_malformed_frame_closes_the_connection_and_says_why(
    still: StillLoop, bad: bytes, why: str
) -> None:
    stream = GOOD + bad + GOOD
    for places in (), range(len(stream)), range(0, len(stream), 7):
        line = Line(still, (1,))
        for piece in cut(stream, places):
            line.lane.data_received(piece)
        assert line.lane.last_error is not None
        assert why in line.lane.last_error
        assert line.socket.aborted
        assert line.log == listen(still, (1,), [GOOD]).log + (
            listen(still, (1,), [GOOD]).log[:1] if bad == HALF_GOOD else []
        )
        line.lane.connection_lost(None)
        assert line.log[-1] == ("close", 1)


def test_a_protocol_header_is_shown_to_aiormq_which_has_an_error_for_it(still: StillLoop) -> None:
    assert listen(still, (), [b"AMQP\0\0\x09\x01"]).passed == b"AMQP\0\0\x09\x01"


def test_after_a_malformed_frame_nothing_is_read(still: StillLoop) -> None:
    line = Line(still, (1,))
    line.lane.data_received(b"\xff" * 8)
    line.lane.data_received(GOOD)
    assert (line.log, line.passed) == ([], b"")


def test_a_handler_that_raises_costs_the_connection_and_not_the_loop(
    still: StillLoop, monkeypatch: pytest.MonkeyPatch
) -> None:
    line = Line(still, (1,))
    monkeypatch.setattr(line.recorders[1], "on_deliver", None)
    line.lane.data_received(GOOD)
    assert line.lane.last_error == "the broker's stream could not be read: TypeError"
    assert line.socket.aborted


def test_a_header_as_large_as_a_frame_and_a_body_as_large_are_fine(still: StillLoop) -> None:
    deliver = Basic.Deliver(
        consumer_tag="c", delivery_tag=1, redelivered=False, exchange="x", routing_key="k"
    )
    properties = Basic.Properties(headers={"mine": "x" * 130_000})
    assert len(listen(still, (1,), [b"".join(content(1, deliver, [131_000], properties))]).log) == 1


def test_a_header_that_the_broker_has_added_to_is_read_however_it_comes(still: StillLoop) -> None:
    """RabbitMQ adds `x-delivery-count` and `x-death` to a header that filled its frame.

    If the larger frame were rejected, the message would arrive again and again.
    """
    deliver = Basic.Deliver(
        consumer_tag="c", delivery_tag=1, redelivered=True, exchange="x", routing_key="k"
    )
    for body in [2], []:
        stream = b"".join(
            content(
                1,
                deliver,
                body,
                Basic.Properties(headers={"mine": "x" * 131_040, "x-death": "y" * 20_000}),
            )
        )
        for places in (), (20,), (40, 100_000), (len(stream) - 1,):
            line = Line(still, (1,))
            for piece in cut(stream, places):
                line.lane.data_received(piece)
            assert line.lane.last_error is None
            assert [entry[:4] for entry in line.log] == [("deliver", 1, 1, True)]


def test_a_small_frame_max_is_kept_to_however_the_frames_come(still: StillLoop) -> None:
    deliver = Basic.Deliver(
        consumer_tag="c", delivery_tag=1, redelivered=False, exchange="x", routing_key="k"
    )
    stream = b"".join(content(1, deliver, [5000], PROPERTIES[0]))
    for places in (), range(len(stream)):
        line = Line(still, (1,))
        line.lane.frame_max = 4096
        for piece in cut(stream, places):
            line.lane.data_received(piece)
        assert (
            line.lane.last_error
            == "the broker's stream is malformed: a frame has 5000 bytes, the limit is 4096 bytes"
        )
        assert not line.log


def damaged(stream: bytes, seed: int) -> bytes:
    """Return the stream with some bytes changed, removed or repeated."""
    chance = random.Random(seed)
    data = bytearray(stream)
    for _ in range(chance.choice((1, 1, 2, 4))):
        place = chance.randrange(len(data))
        change = chance.randrange(4)
        if change == 0:
            data[place : place + chance.randrange(1, 9)] = b""
        elif change == 1:
            data[place:place] = data[place : place + chance.randrange(1, 9)]
        else:
            data[place] = chance.choice((0, 1, 2, 3, 8, 0x3C, 0xCE, chance.randrange(256)))
        if not data:
            break
    return bytes(data) or b"\0"


def test_a_frame_of_type_65_inside_a_content_is_no_protocol_header(still: StillLoop) -> None:
    """The byte 65 is the "A" of "AMQP", but only the whole word is a protocol header."""
    deliver, head, body = content(
        1, Basic.Deliver("ctag", delivery_tag=9, routing_key="k"), [3], Basic.Properties()
    )
    bad = deliver + head + b"A" + body[1:]
    whole = listen(still, (1, 2), [bad])
    assert "type 65" in (whole.trouble or "")
    assert listen(still, (1, 2), cut(bad, range(len(bad)))) == whole


@settings(max_examples=300, deadline=None, database=None, suppress_health_check=list(HealthCheck))
@given(streams, st.integers(0, 2**32))
def test_a_damaged_stream_raises_nothing_and_says_the_same_however_it_is_cut(
    still: StillLoop, stream: bytes, seed: int
) -> None:
    for number in range(10):
        bad = damaged(stream, seed + number)
        whole = listen(still, (1, 2), [bad])
        assert listen(still, (1, 2), cut(bad, range(len(bad)))) == whole
        assert listen(still, (1, 2), cut(bad, [seed % len(bad)])) == whole


@settings(max_examples=200, deadline=None, database=None, suppress_health_check=list(HealthCheck))
@given(st.lists(st.binary(max_size=40), max_size=20))
def test_anything_at_all_raises_nothing(still: StillLoop, pieces: list[bytes]) -> None:
    listen(still, (1, 2), [method(1, Basic.QosOk()), *pieces])
