"""Servers on this machine that open AMQP connections, or refuse to."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from pamqp import commands, frame
from pamqp.heartbeat import Heartbeat

__all__ = ["Host", "hosts"]

HEADER_BYTES = 8
FRAME_HEAD_BYTES = 7


@dataclass(eq=False)
class Host:
    """A broker with one answer to every attempt to connect."""

    cluster: str | None = "one"
    refuses: bool = False
    port: int = 0
    attempts: int = 0
    heartbeats: list[int] = field(default_factory=list)
    """The heartbeat of each connection, as the client has chosen it."""
    _server: asyncio.Server | None = None
    _open: set[asyncio.StreamWriter] = field(default_factory=set)

    @property
    def place(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def connected(self) -> int:
        """Number of connections that are open now."""
        return len(self._open)

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Accept no further connection, and reset the open ones."""
        if self._server is not None:
            self._server.close()
        self.reset()

    def reset(self) -> None:
        for writer in [*self._open]:
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.attempts += 1
        try:
            await self._shake_hands(reader, writer)
            self._open.add(writer)
            while True:
                method = await read(reader)
                if isinstance(method, commands.Connection.Close):
                    writer.write(frame.marshal(commands.Connection.CloseOk(), 0))
        except (EOFError, ConnectionError):
            pass
        finally:
            self._open.discard(writer)
            writer.transport.abort()

    async def _shake_hands(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        await reader.readexactly(HEADER_BYTES)
        properties: dict[str, Any] = {
            "product": "RabbitMQ",
            "version": "3.10.8",
            "capabilities": {},
        }
        if self.cluster is not None:
            properties["cluster_name"] = self.cluster
        start = commands.Connection.Start(server_properties=properties, mechanisms="PLAIN")
        writer.write(frame.marshal(start, 0))
        await read(reader)
        if self.refuses:
            text = "ACCESS_REFUSED - Login was refused"
            writer.write(frame.marshal(commands.Connection.Close(403, text, 0, 0), 0))
            await writer.drain()
            raise EOFError
        writer.write(frame.marshal(commands.Connection.Tune(2047, 131_072, 60), 0))
        tuned = await read(reader)
        self.heartbeats.append(tuned.heartbeat)
        await read(reader)
        writer.write(frame.marshal(commands.Connection.OpenOk(), 0))


async def read(reader: asyncio.StreamReader) -> Any:
    """Return the next method. Skip heartbeats."""
    while True:
        head = await reader.readexactly(FRAME_HEAD_BYTES)
        rest = await reader.readexactly(int.from_bytes(head[3:], "big") + 1)
        method = frame.unmarshal(head + rest)[2]
        if not isinstance(method, Heartbeat):
            return method


@asynccontextmanager
async def hosts(*given: Host) -> AsyncIterator[str]:
    """Start the hosts, yield the text of a `BUS_URL` that lists them, and stop them."""
    for host in given:
        await host.start()
    try:
        yield f"amqp://guest:guest@{','.join(host.place for host in given)}/"
    finally:
        for host in given:
            await host.stop()
