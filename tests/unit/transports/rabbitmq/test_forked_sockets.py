"""A forked child has no socket of its parent's broker connections."""

import asyncio
import multiprocessing
import os
from pathlib import Path
from typing import Any

import pytest

from bus.transports.rabbitmq.forked_sockets import close_in_children


def _send_from_child(writer: asyncio.StreamWriter, number: int) -> None:
    is_closed = Path(f"/proc/self/fd/{number}").readlink() == Path(os.devnull)
    writer.write(b"child")
    os._exit(0 if is_closed else 1)


@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
async def test_a_forked_child_neither_keeps_the_connection_open_nor_sends_on_it() -> None:
    received = asyncio.get_running_loop().create_future()

    async def on_client(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        received.set_result(await reader.read())
        writer.close()

    async with await asyncio.start_server(on_client, "127.0.0.1", 0) as server:
        address = server.sockets[0].getsockname()
        _, writer = await asyncio.open_connection(*address)
        close_in_children(writer.transport)
        number = writer.get_extra_info("socket").fileno()
        process: Any = multiprocessing.get_context("fork").Process(
            target=_send_from_child, args=(writer, number)
        )
        process.start()
        await asyncio.to_thread(process.join, 30)
        assert process.exitcode == 0
        writer.write(b"parent")
        writer.close()
        await writer.wait_closed()
        assert await received == b"parent"
