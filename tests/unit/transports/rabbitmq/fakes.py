"""A lane on a socket that only remembers, on the running loop."""

import asyncio
from collections.abc import Iterator
from typing import Any

from pamqp.commands import Basic

from bus.transports.rabbitmq.fastlane.protocol import FastLaneProtocol
from tests.unit.transports.rabbitmq.streams import Socket, frames_of


class Acks:
    """Has these frames to write."""

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
    socket.reader = reader  # type: ignore[attr-defined]  # the lane holds it weakly
    return lane, socket


def written(socket: Socket) -> list[tuple[str, Any]]:
    """What was written, by pamqp: the method's name and the method, contents left out."""
    return [
        (type(value).__name__, value)
        for _, _, value in frames_of(b"".join(socket.writes))
        if hasattr(value, "frame_id")
    ]


def published(socket: Socket) -> int:
    """How many messages."""
    return sum(name == "Publish" for name, _ in written(socket))


def acks(socket: Socket) -> Iterator[tuple[int, bool]]:
    """Tag and `multiple` of each ack."""
    return (
        (value.delivery_tag, value.multiple)
        for _, value in written(socket)
        if isinstance(value, Basic.Ack)
    )
