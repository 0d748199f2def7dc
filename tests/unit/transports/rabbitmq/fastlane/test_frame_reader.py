import os
import random
from collections.abc import Sequence

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pamqp.commands import Basic, Channel

from tests.unit.transports.rabbitmq.streams import (
    ACK,
    BETWEEN,
    CANCEL,
    CLOSE,
    DELIVER,
    GET,
    PROPERTIES,
    RARE,
    RETURN,
    Heard,
    Line,
    Recorder,
    StillLoop,
    content,
    cut,
    happening,
    interleaved,
    listen,
    method,
    oracle,
    streams,
)

EXAMPLES = int(os.environ.get("LANE_EXAMPLES", "300"))
"""Number of streams for each set of claims; LANE_EXAMPLES=30000 runs for a night."""
CUTTINGS = 100
"""Number of cuttings of each stream."""
CLAIMS: tuple[tuple[int, ...], ...] = ((1,), (1, 2), (2, 3, 4), (1, 2, 3, 4))

thorough = settings(
    max_examples=EXAMPLES, deadline=None, database=None, suppress_health_check=list(HealthCheck)
)

FIXED = interleaved(
    [
        (1, DELIVER, 6, 1),
        (2, DELIVER, 3, 2),
        (3, DELIVER, 4, 1),
        (1, RETURN, 2, 1),
        (2, GET, 5, 2),
        (1, ACK, 3, 3),
        (2, RARE, 0, 0),
        (2, CANCEL, 0, 0),
        (1, DELIVER, 0, 0),
        (2, CLOSE, 0, 0),
        (2, DELIVER, 3, 1),
    ],
    [0, 13, 1, 2, 1, 12, 0, 2, 2, 14, 5, 15],
)


def cuttings(size: int, seed: int) -> Sequence[Sequence[int]]:
    """Return cuttings with mostly few cuts and some with many; the first is byte by byte."""
    chance = random.Random(seed)
    numbers = [chance.choice((1, 1, 2, 3, 5, 9)) for _ in range(CUTTINGS - 1)]
    places = [[int(chance.random() * size) for _ in range(number)] for number in numbers]
    return [range(size), *map(sorted, places)]


@pytest.mark.parametrize("claims", CLAIMS, ids=str)
def test_a_stream_cut_anywhere_says_what_pamqp_reads_in_the_whole(
    still: StillLoop, claims: tuple[int, ...]
) -> None:
    cases = 0

    @thorough
    @given(streams, st.integers(0, 2**32))
    def each_cutting(stream: bytes, seed: int) -> None:
        nonlocal cases
        expected = oracle(claims, stream)
        for places in cuttings(len(stream), seed):
            assert listen(still, claims, cut(stream, places)) == expected
            cases += 1

    each_cutting()
    assert cases * len(CLAIMS) >= min(100_000, EXAMPLES * CUTTINGS * len(CLAIMS))


def test_a_fixed_stream_cut_at_every_place(still: StillLoop) -> None:
    expected = oracle((1, 2), FIXED)
    assert len(expected.log) == 7
    assert expected.passed
    for place in range(len(FIXED) + 1):
        assert listen(still, (1, 2), cut(FIXED, [place])) == expected


def test_a_fixed_stream_in_pieces_of_every_size(still: StillLoop) -> None:
    expected = oracle((1, 2), FIXED)
    for size in range(1, len(FIXED)):
        assert listen(still, (1, 2), cut(FIXED, range(size, len(FIXED), size))) == expected


def test_what_nobody_has_claimed_is_passed_on_untouched(still: StillLoop) -> None:
    assert listen(still, (), [FIXED]) == Heard([], FIXED, blocked=True)


@pytest.mark.parametrize("size", [0, 1, 16383, 131064 - 1, 131064, 131065, 400_000])
def test_a_body_over_many_frames_comes_whole(still: StillLoop, size: int) -> None:
    room = 131072 - 8
    sizes = [min(room, size - at) for at in range(0, size, room)]
    deliver = Basic.Deliver(
        consumer_tag="c", delivery_tag=1, redelivered=False, exchange="x", routing_key="k"
    )
    stream = b"".join(content(1, deliver, sizes, PROPERTIES[1]))
    expected = oracle((1,), stream)
    for piece in (1448, 65536, 262144):
        assert listen(still, (1,), cut(stream, range(piece, len(stream), piece))) == expected


@pytest.mark.parametrize("sizes", [[101], [100, 1], [60] * 5], ids=str)
def test_a_body_beyond_the_limit_is_dropped_while_it_arrives(
    still: StillLoop, sizes: list[int]
) -> None:
    line = Line(still, (1,))
    line.recorders[1].max_body_bytes = 100
    deliver = Basic.Deliver(
        consumer_tag="c", delivery_tag=1, redelivered=False, exchange="x", routing_key="k"
    )
    frames = content(1, deliver, sizes, PROPERTIES[1])
    for frame in frames[:-1]:
        line.lane.data_received(frame)
        assert all(partial.body == [] for partial in line.lane._incoming._partial.values())
    fits = content(1, deliver, [100], PROPERTIES[1])
    line.lane.data_received(frames[-1] + b"".join(fits))
    assert [entry[0] for entry in line.log] == ["drop", "deliver"]
    assert line.log[0][-1] == sum(sizes)
    assert len(line.log[1][-1]) == 100


# --- Claims ---


def test_content_whose_method_went_to_aiormq_follows_it(still: StillLoop) -> None:
    line = Line(still)
    first, *rest = happening(1, DELIVER, 4, 1)
    line.lane.data_received(first)
    line.lane.attach(1, Recorder(1, line.log))
    line.lane.data_received(b"".join(rest))
    assert (line.log, line.passed) == ([], first + b"".join(rest))


def test_a_released_channel_hands_nothing_to_anybody_until_it_is_closed(still: StillLoop) -> None:
    line = Line(still, (1,))
    half, rest = happening(1, DELIVER, 4, 1)[:2], happening(1, DELIVER, 4, 1)[2:]
    line.lane.data_received(b"".join(half))
    line.lane.detach(1, line.recorders[1])
    line.lane.data_received(
        b"".join([*rest, *happening(1, DELIVER, 3, 3), *happening(1, ACK, 1, 1)])
    )
    assert (line.log, line.passed) == ([], b"")
    closed = method(1, Channel.CloseOk())
    reopened = b"".join(happening(1, DELIVER, 3, 3))
    line.lane.data_received(closed + reopened)
    assert (line.log, line.passed) == ([], closed + reopened)


def test_a_release_by_who_had_the_number_before_does_nothing(still: StillLoop) -> None:
    line = Line(still, (1,))
    before = line.recorders[1]
    line.lane.data_received(method(1, Channel.Close(404, "gone", 0, 0)))
    after = Recorder(1, [])
    line.lane.attach(1, after)
    line.lane.detach(1, before)
    line.lane.data_received(b"".join(happening(1, DELIVER, 3, 3)))
    assert [entry[0] for entry in before.log] == ["close"]
    assert [entry[0] for entry in after.log] == ["deliver"]


def test_who_claims_a_number_anew_ends_the_claim_before(still: StillLoop) -> None:
    line = Line(still, (1,))
    line.lane.attach(1, Recorder(1, []))
    assert line.log == [("close", 1)]


def test_who_claims_twice_stays(still: StillLoop) -> None:
    line = Line(still, (1,))
    line.lane.attach(1, line.recorders[1])
    assert not line.log


def test_a_lost_connection_ends_all_claims_once(still: StillLoop) -> None:
    line = Line(still, (1, 2))
    line.lane.data_received(method(1, Channel.CloseOk()))
    line.lane.connection_lost(None)
    assert line.log == [("close", 1), ("close", 2)]
    assert line.lane.writable


# --- Heartbeats ---


def test_while_only_hot_frames_come_aiormq_is_shown_heartbeats(still: StillLoop) -> None:
    line = Line(still, (1,))
    hot = b"".join(happening(1, DELIVER, 3, 1))
    for _ in range(100):
        still.now += 0.1
        line.lane.data_received(hot)
        assert line.lane.heard == still.now
    assert line.passed in (BETWEEN[0] * 9, BETWEEN[0] * 10)


def test_a_large_body_that_comes_slowly_is_a_sign_of_life(still: StillLoop) -> None:
    line = Line(still, (1,))
    deliver = Basic.Deliver(
        consumer_tag="c", delivery_tag=1, redelivered=False, exchange="x", routing_key="k"
    )
    for piece in cut(b"".join(content(1, deliver, [1000], PROPERTIES[0])), range(100, 1000, 100)):
        still.now += 1.1
        line.lane.data_received(piece)
    assert line.passed == BETWEEN[0] * 10
    assert [entry[0] for entry in line.log] == ["deliver"]


def test_no_heartbeat_comes_before_the_first_frame(still: StillLoop) -> None:
    line = Line(still)
    start = method(0, Channel.OpenOk())
    for byte in start:
        line.lane.data_received(bytes((byte,)))
    assert line.passed == start


def test_no_heartbeat_is_needed_where_others_come(still: StillLoop) -> None:
    line = Line(still, (1,))
    rare = b"".join(happening(1, RARE, 0, 0))
    for _ in range(20):
        still.now += 0.9
        line.lane.data_received(rare)
    assert line.passed == rare * 20
