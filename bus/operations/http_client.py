"""A request to an HTTP server of the bus on this machine. h11 parses the reply."""

import asyncio
from dataclasses import dataclass
from pathlib import Path

import h11

from bus.operations.http_address import HttpAddress

__all__ = ["Reply", "UnreadableReply", "fetch"]

CHUNK_BYTES = 64 * 1024


class UnreadableReply(Exception):
    """A reply that is not HTTP, is too large, or is not complete."""


@dataclass(frozen=True, slots=True)
class Reply:
    """The reply of a server."""

    status: int
    content: bytes


async def fetch(at: HttpAddress, path: str, *, max_bytes: int) -> Reply:
    """Send a GET request, and return the reply. The caller limits the time.

    Args:
        at: The address of the server.
        path: The path of the page.
        max_bytes: Maximum size of the content.

    Raises:
        OSError: The server does not listen, or it closed the connection without a reply.
        UnreadableReply: The reply is not HTTP, is too large, or is not complete.
    """
    opened = (
        asyncio.open_unix_connection(at) if isinstance(at, Path) else asyncio.open_connection(*at)
    )
    reader, writer = await opened
    connection = h11.Connection(h11.CLIENT)
    fields = [("host", "localhost"), ("connection", "close")]
    try:
        request = h11.Request(method="GET", target=path, headers=fields)
        writer.write(
            (connection.send(request) or b"") + (connection.send(h11.EndOfMessage()) or b"")
        )
        return await _read_reply(connection, reader, max_bytes)
    except h11.RemoteProtocolError as error:
        raise UnreadableReply("the server's reply is not HTTP, or is not complete") from error
    finally:
        writer.close()


async def _read_reply(
    connection: h11.Connection, reader: asyncio.StreamReader, max_bytes: int
) -> Reply:
    status, content, is_empty = 0, bytearray(), True
    while True:
        match connection.next_event():
            case h11.NEED_DATA:
                data = await reader.read(CHUNK_BYTES)
                if not data and is_empty:
                    raise ConnectionResetError("the server closed the connection")
                is_empty = False
                connection.receive_data(data)
            case h11.Response(status_code=code):
                status = code
            case h11.Data(data=data):
                content += data
                if len(content) > max_bytes:
                    raise UnreadableReply(f"the server's reply has more than {max_bytes} bytes")
            case h11.EndOfMessage():
                return Reply(status, bytes(content))
            case h11.ConnectionClosed():
                raise UnreadableReply("the server's reply is not complete")
            case _:  # an interim response
                pass
