"""A TCP proxy in the test's own loop.

It can reset connections at once, refuse them, and lose the broker's answers.
"""

import asyncio

from typing_extensions import override


class Proxy:
    """A proxy between one client and a broker."""

    def __init__(self, host: str, port: int) -> None:
        self._target = host, port
        self._server: asyncio.Server | None = None
        self._pipes: set[Pipe] = set()
        self.port = 0

    async def open(self) -> None:
        """Accept connections, each time on the same port."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(self._pipe, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    def _pipe(self) -> "Pipe":
        """Return the protocol for one connection. A subclass can return another one."""
        return Pipe(self._target, self._pipes)

    async def close(self) -> None:
        """Stop accepting connections, and reset the open ones."""
        if self._server is not None:
            self._server.close()
        self.cut()

    def cut(self) -> None:
        """Reset all connections in both directions."""
        for pipe in [*self._pipes]:
            pipe.cut()

    def mute(self) -> None:
        """Lose all further data from the broker on the open connections."""
        for pipe in self._pipes:
            pipe.far.muted = True


class Pipe(asyncio.Protocol):
    """The client's end of one connection. `far` is the broker's end."""

    transport: asyncio.Transport

    def __init__(self, target: tuple[str, int], pipes: "set[Pipe]") -> None:
        self._target, self._pipes = target, pipes
        self.far = FarEnd(self)
        self._dialling: asyncio.Task[None] | None = None

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self._pipes.add(self)
        transport.pause_reading()
        self._dialling = asyncio.get_running_loop().create_task(self._dial())

    async def _dial(self) -> None:
        try:
            await asyncio.get_running_loop().create_connection(lambda: self.far, *self._target)
        except OSError:
            self.transport.abort()
        else:
            self.transport.resume_reading()

    @override
    def data_received(self, data: bytes) -> None:
        if self.far.transport is not None:
            self.far.transport.write(data)

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        self.cut()

    def cut(self) -> None:
        self._pipes.discard(self)
        self.transport.abort()
        if self.far.transport is not None:
            self.far.transport.abort()


class FarEnd(asyncio.Protocol):
    """The broker's end of one connection."""

    def __init__(self, near: Pipe) -> None:
        self._near = near
        self.transport: asyncio.Transport | None = None
        self.muted = False

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        if self._near.transport.is_closing():
            # The client's end was reset while this end was connecting.
            transport.abort()

    @override
    def data_received(self, data: bytes) -> None:
        if not self.muted:
            self._near.transport.write(data)

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        if not self.muted:
            self._near.cut()
