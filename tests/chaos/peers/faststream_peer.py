"""FastStream: a broker, a subscriber, and `publish`."""

import asyncio
import logging
import sys
from pathlib import Path

from faststream.rabbit import RabbitBroker, RabbitQueue

from tests.chaos.journal import Journal
from tests.chaos.peers.order import QUEUE, URL, handled, send_all

WORK = RabbitQueue(QUEUE, durable=True)


async def work(path: str) -> None:
    """Consume until the process ends."""
    journal, broker = Journal(Path(path)), RabbitBroker(URL, log_level=logging.DEBUG)

    @broker.subscriber(WORK)
    async def on_message(number: int, seconds: float) -> None:
        await handled(journal, number, seconds)

    async with broker:
        await broker.start()
        print("ready", flush=True)
        await asyncio.Event().wait()


async def send(path: str, words: str) -> None:
    """Publish what the order specifies."""
    async with RabbitBroker(URL, log_level=logging.DEBUG) as broker:

        async def publish(number: int, seconds: float) -> None:
            await broker.publish({"number": number, "seconds": seconds}, WORK, persist=True)

        print("ready", flush=True)
        await send_all(path, words, publish)


if __name__ == "__main__":
    asyncio.run(work(sys.argv[2]) if sys.argv[1] == "work" else send(*sys.argv[2:]))
