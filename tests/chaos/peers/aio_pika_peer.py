"""aio-pika as in its tutorials: `connect_robust`, a channel with confirms, `message.process()`."""

import asyncio
import json
import sys
from pathlib import Path

import aio_pika
from aio_pika.abc import AbstractIncomingMessage

from tests.chaos.journal import Journal
from tests.chaos.peers.order import QUEUE, URL, handled, send_all


async def work(path: str) -> None:
    """Consume until the process ends."""
    journal = Journal(Path(path))
    connection = await aio_pika.connect_robust(URL)
    queue = await (await connection.channel()).declare_queue(QUEUE, durable=True)

    async def on_message(message: AbstractIncomingMessage) -> None:
        async with message.process():
            body = json.loads(message.body)
            await handled(journal, body["number"], body["seconds"])

    await queue.consume(on_message)
    print("ready", flush=True)
    await asyncio.Event().wait()


async def send(path: str, words: str) -> None:
    """Publish what the order specifies."""
    connection = await aio_pika.connect_robust(URL)
    channel = await connection.channel()

    async def publish(number: int, seconds: float) -> None:
        body = json.dumps({"number": number, "seconds": seconds}).encode()
        message = aio_pika.Message(body, delivery_mode=aio_pika.DeliveryMode.PERSISTENT)
        await channel.default_exchange.publish(message, QUEUE)

    print("ready", flush=True)
    await send_all(path, words, publish)


if __name__ == "__main__":
    asyncio.run(work(sys.argv[2]) if sys.argv[1] == "work" else send(*sys.argv[2:]))
