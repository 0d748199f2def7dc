"""The faults of the proxy. A campaign proves nothing if a fault is not the intended one."""

import asyncio
from typing import cast

from bus.transports.rabbitmq.amqp.frames import HEARTBEAT, ack_frame, publish_frames, publish_method
from tests.chaos.proxy import NO_SUCH_TAG, FaultyProxy, Frames
from tests.conformance.proxy import Pipe

PUBLISHED = publish_frames(
    3, publish_method("x", "key", mandatory=True), b"\x00\x00", b"body", 4096
)
CONFIRM = ack_frame(3, 7, multiple=True)


def test_a_stream_is_cut_into_its_frames_however_it_comes() -> None:
    stream, whole = Frames(skip=8), b"AMQP\x00\x00\x09\x01" + PUBLISHED + HEARTBEAT + CONFIRM
    found = [frame for at in range(len(whole)) for frame in stream.feed(whole[at : at + 1])]
    assert b"".join(found) == whole
    assert len(found) == 1 + 3 + 1 + 1
    assert Frames(skip=8).feed(whole) == found


def test_confirms_are_swallowed_and_nothing_else() -> None:
    proxy = FaultyProxy("127.0.0.1", 1)
    proxy.swallowing = True
    assert proxy.passed_down([HEARTBEAT, CONFIRM, HEARTBEAT]) == [HEARTBEAT, HEARTBEAT]
    assert proxy.swallowed == 1


def test_a_forged_ack_goes_before_a_publish_and_once() -> None:
    proxy, frames = FaultyProxy("127.0.0.1", 1), Frames(skip=0).feed(PUBLISHED)
    proxy.forge()
    assert proxy.passed_up([HEARTBEAT]) == [HEARTBEAT]
    assert proxy.passed_up(frames) == [ack_frame(3, NO_SUCH_TAG, multiple=False), *frames]
    assert proxy.passed_up(frames) == frames


def test_a_cut_waits_for_frames_that_matter_and_falls_within_them() -> None:
    proxy, frames = FaultyProxy("127.0.0.1", 1), Frames(skip=0).feed(PUBLISHED)
    for after in range(200):
        proxy.cut_within("up", after)
        assert proxy.to_cut("down", frames) is None
        assert proxy.to_cut("up", [HEARTBEAT]) is None
        place = proxy.to_cut("up", frames)
        assert place is not None
        assert 0 < place < len(PUBLISHED)
        assert proxy.to_cut("up", frames) is None


async def test_a_connection_that_is_cut_while_its_far_end_is_dialled_is_closed_at_both_ends() -> (
    None
):
    """Cut a connection before its other side is open: both sides must be closed.

    Otherwise the broker's side stays open until the broker closes it, and a later test fails.
    """
    server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0)
    broker = server.sockets[0].getsockname()[:2]
    _, near = await asyncio.open_connection(*broker)
    near.transport.abort()
    pipe = Pipe(broker, set())
    pipe.transport = cast("asyncio.Transport", near.transport)
    far, _ = await asyncio.get_running_loop().create_connection(lambda: pipe.far, *broker)
    assert far.is_closing()
    server.close()
