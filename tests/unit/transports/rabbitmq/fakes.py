"""A fast lane on the running event loop, with a socket that records what is written."""

import asyncio
from collections.abc import Iterator
from typing import Any

from pamqp.commands import Basic

from bus.transports.rabbitmq.fastlane.protocol import FastLaneProtocol
from tests.unit.transports.rabbitmq.streams import Socket, frames_of


class Acks:
    """A frame source with fixed frames."""

    def __init__(self, *frames: bytes) -> None:
        self._frames = list(frames)

    def frames(self) -> list[bytes]:
        return self._frames


def connected() -> tuple[FastLaneProtocol, Socket]:
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(loop=loop)
    lane = FastLaneProtocol(reader, loop)
    socket = Socket()
    lane.connection_made(socket)
    socket.reader = reader  # type: ignore[attr-defined]  # the lane has a weak reference only
    return lane, socket


def written(socket: Socket) -> list[tuple[str, Any]]:
    """Return the name and the method of each written method frame, as pamqp decodes it."""
    return [
        (type(value).__name__, value)
        for _, _, value in frames_of(b"".join(socket.writes))
        if hasattr(value, "frame_id")
    ]


def published(socket: Socket) -> int:
    """Return the number of written publishes."""
    return sum(name == "Publish" for name, _ in written(socket))


def acks(socket: Socket) -> Iterator[tuple[int, bool]]:
    """Return the tag and the flag `multiple` of each written ack."""
    return (
        (value.delivery_tag, value.multiple)
        for _, value in written(socket)
        if isinstance(value, Basic.Ack)
    )
