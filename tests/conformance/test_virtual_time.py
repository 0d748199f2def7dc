"""Tests of the event loop with virtual time."""

import asyncio
import threading
import time

from bus.transports.memory import wall_clock
from tests.conformance.world import World


async def test_an_hour_of_waiting_takes_no_time(virtual_world: World) -> None:
    began, loop = time.monotonic(), asyncio.get_running_loop()
    started, wall = loop.time(), wall_clock()
    await asyncio.sleep(3600)
    assert abs(loop.time() - started - 3600) < 0.001
    assert abs(wall_clock() - wall - 3600) < 0.001
    assert time.monotonic() - began < 60


async def test_work_in_a_thread_is_waited_for_in_real_time(virtual_world: World) -> None:
    async with asyncio.timeout(2):
        await asyncio.to_thread(time.sleep, 0.2)


async def test_a_timeout_around_a_thread_is_a_timeout_in_real_time(virtual_world: World) -> None:
    began, over = time.monotonic(), threading.Event()
    waiting = asyncio.ensure_future(asyncio.to_thread(over.wait))
    done, _ = await asyncio.wait([waiting], timeout=0.1)
    assert not done
    assert time.monotonic() - began > 0.05
    over.set()
    await waiting


async def test_a_socket_is_waited_for_in_real_time(virtual_world: World) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(await reader.readline())
        writer.close()
        await writer.wait_closed()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
    async with asyncio.timeout(5):
        writer.write(b"hello\n")
        assert await reader.readline() == b"hello\n"
    writer.close()
    await writer.wait_closed()
    server.close()
    await server.wait_closed()


async def test_timers_fire_in_their_order(virtual_world: World) -> None:
    order: list[int] = []

    async def after(seconds: int) -> None:
        await asyncio.sleep(seconds)
        order.append(seconds)

    await asyncio.gather(*(after(seconds) for seconds in (300, 1, 60, 3600, 2)))
    assert order == [1, 2, 60, 300, 3600]
