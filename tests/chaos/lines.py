"""The end of standard input, which means that the driver has finished or has ended."""

import asyncio
import sys

__all__ = ["input_ended"]


async def input_ended(then: asyncio.Event) -> None:
    """Set `then` when standard input ends: no process of a campaign outlives its driver."""
    lines = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(lines), sys.stdin
    )
    await lines.read()
    then.set()
