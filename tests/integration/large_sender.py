"""A foreign client that sends large requests and is not a part of the bus.

The arguments are the broker's URL, the number of requests, and the bytes of each body.
"""

import asyncio
import sys

import aio_pika


async def main(url: str, count: str, size: str) -> None:
    connection = await aio_pika.connect(url)
    async with connection:
        channel = await connection.channel()
        exchange = await channel.get_exchange("bus.requests")
        for number in range(int(count)):
            request = aio_pika.Message(
                bytes(int(size)),
                message_id=f"large-{number}",
                type="shelf.weigh.v1",
                app_id="attacker",
                content_type="application/json",
            )
            await exchange.publish(request, "shelf.weigh.v1")


asyncio.run(main(*sys.argv[1:]))
