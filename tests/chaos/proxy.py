"""A proxy that parses frames and causes faults.

It delays frames, cuts connections within a frame, leaves connections half open, drops confirms
and inserts forged frames.
"""

import asyncio
from collections.abc import Iterator

from typing_extensions import override

from bus.transports.rabbitmq.amqp.frames import (
    ACK,
    DELIVER,
    METHOD,
    NACK,
    OVERHEAD,
    PUBLISH,
    ack_frame,
)
from tests.conformance.proxy import FarEnd, Pipe, Proxy

__all__ = ["FaultyProxy"]

PROTOCOL_HEADER = 8
"""Bytes that a client sends before its first frame."""
NO_SUCH_TAG = 2**40
HOT = (PUBLISH, DELIVER, ACK)


class FaultyProxy(Proxy):
    """A proxy with faults that apply to all connections until they are switched off."""

    def __init__(self, host: str, port: int) -> None:
        super().__init__(host, port)
        self.delay = 0.0
        """Seconds of delay in each direction."""
        self.swallowing = False
        """True to drop the broker's confirms."""
        self.swallowed = 0
        """Number of confirm frames that were dropped."""
        self.cuts = 0
        """Number of connections that `cut_within` has cut."""
        self.forged = 0
        """Number of acks that `forge` has inserted."""
        self._cut: tuple[str, int] | None = None
        self._forging = 0
        self.stranded: set[asyncio.Transport] = set()
        """The broker's side of frozen connections that the client has closed."""

    @override
    async def close(self) -> None:
        await super().close()
        for transport in self.stranded:
            transport.abort()

    @override
    def _pipe(self) -> Pipe:
        return FaultyPipe(self.target(), self._pipes, self)

    def target(self) -> tuple[str, int]:
        """Return the address for the next connection."""
        return self._target

    def cut_within(self, direction: str, after: int) -> None:
        """Reset the next connection with frequent frames in one direction.

        Args:
            direction: `up` for publishes and acks, `down` for deliveries and confirms.
            after: Number of bytes to pass before the reset.
        """
        self._cut = direction, after

    def forge(self, count: int = 1) -> None:
        """Insert an ack of an unknown delivery before the next publish or ack.

        The broker then closes the channel with 406.
        """
        self._forging = count

    def freeze(self) -> int:
        """Freeze the open connections, and return their number.

        The proxy relays nothing more on them, not even their end.
        """
        open_now = [pipe for pipe in self._pipes if isinstance(pipe, FaultyPipe)]
        for pipe in open_now:
            pipe.frozen = True
        return len(open_now)

    @property
    def frozen(self) -> int:
        """Number of frozen connections that the client has not closed."""
        return sum(isinstance(pipe, FaultyPipe) and pipe.frozen for pipe in self._pipes)

    def to_cut(self, direction: str, frames: list[bytes]) -> int | None:
        """Return the number of bytes to pass before a reset; None for no reset."""
        if (
            self._cut is None
            or self._cut[0] != direction
            or not any(method_of(frame) in HOT for frame in frames)
        ):
            return None
        after = self._cut[1] % max(1, sum(map(len, frames)) - 1) + 1
        self._cut = None
        self.cuts += 1
        return after

    def passed_up(self, frames: list[bytes]) -> list[bytes]:
        """Return the frames for the broker."""
        if not self._forging:
            return frames
        for place, frame in enumerate(frames):
            if method_of(frame) in (PUBLISH, ACK):
                self._forging -= 1
                self.forged += 1
                return [
                    *frames[:place],
                    ack_frame(channel_of(frame), NO_SUCH_TAG, multiple=False),
                    *frames[place:],
                ]
        return frames

    def passed_down(self, frames: list[bytes]) -> list[bytes]:
        """Return the frames for the client."""
        if not self.swallowing:
            return frames
        kept = [frame for frame in frames if method_of(frame) not in (ACK, NACK)]
        self.swallowed += len(frames) - len(kept)
        return kept


class FaultyPipe(Pipe):
    """The client's side of a connection."""

    def __init__(self, target: tuple[str, int], pipes: set[Pipe], proxy: FaultyProxy) -> None:
        super().__init__(target, pipes)
        self.proxy = proxy
        self.frozen = False
        self.far: FarEnd = FaultyFarEnd(self)
        self._stream = Frames(skip=PROTOCOL_HEADER)

    @override
    def data_received(self, data: bytes) -> None:
        if self.frozen or self.far.transport is None:
            return
        frames = self._stream.feed(data)
        after = self.proxy.to_cut("up", frames)
        if after is not None:
            self._reset(self.far.transport, b"".join(frames)[:after])
        else:
            self.later(self.far.transport, self.proxy.passed_up(frames))

    def later(self, to: asyncio.Transport, frames: list[bytes]) -> None:
        """Write frames after the proxy's delay.

        They stay in order, because all frames have the same delay.
        """
        data = b"".join(frames)
        if self.proxy.delay:
            asyncio.get_running_loop().call_later(self.proxy.delay, to.write, data)
        elif data:
            to.write(data)

    def _reset(self, to: asyncio.Transport, last: bytes) -> None:
        to.write(last)
        self.cut()

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        if self.frozen:
            self._pipes.discard(self)
            if self.far.transport is not None:
                # The broker does not learn that the client has closed the connection.
                self.proxy.stranded.add(self.far.transport)
        else:
            self.cut()


class FaultyFarEnd(FarEnd):
    """The broker's side of a connection."""

    def __init__(self, near: FaultyPipe) -> None:
        super().__init__(near)
        self._pipe = near
        self._stream = Frames(skip=0)

    @override
    def data_received(self, data: bytes) -> None:
        pipe = self._pipe
        if pipe.frozen:
            return
        frames = self._stream.feed(data)
        after = pipe.proxy.to_cut("down", frames)
        if after is not None:
            pipe.transport.write(b"".join(frames)[:after])
            pipe.cut()
        else:
            pipe.later(pipe.transport, pipe.proxy.passed_down(frames))

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        if not self._pipe.frozen:
            self._pipe.cut()


class Frames:
    """A splitter of one direction of a connection into complete frames."""

    def __init__(self, *, skip: int) -> None:
        """Prepare the splitter.

        Args:
            skip: Bytes at the beginning that are not a frame.
        """
        self._skip = skip
        self._rest = b""

    def feed(self, data: bytes) -> list[bytes]:
        """Return the frames that are complete now."""
        self._rest += data
        return [*self._whole()]

    def _whole(self) -> Iterator[bytes]:
        data, at = self._rest, 0
        if self._skip:
            if len(data) < self._skip:
                return
            at, self._skip = self._skip, 0
            yield data[:at]
        while len(data) - at >= OVERHEAD:
            end = at + OVERHEAD + int.from_bytes(data[at + 3 : at + 7], "big")
            if end > len(data):
                break
            yield data[at:end]
            at = end
        self._rest = data[at:]


def method_of(frame: bytes) -> int:
    """Return the class and method of a method frame; 0 for any other frame."""
    return (
        int.from_bytes(frame[7:11], "big")
        if frame[0] == METHOD and len(frame) >= OVERHEAD + 4
        else 0
    )


def channel_of(frame: bytes) -> int:
    """Return the channel of a frame."""
    return int.from_bytes(frame[1:3], "big")
