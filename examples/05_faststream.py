"""FastStream: subscribers of FastStream and handlers of the bus share one connection.

Run it with BUS_URL set to a RabbitMQ and BUS_AUTH=off: python examples/05_faststream.py
"""

import asyncio
import os

from faststream import FastStream
from faststream.rabbit import RabbitBroker

from bus import Bus, Depends, Message, Request, Router, contract
from bus.integrations.faststream import attach

broker = RabbitBroker(os.environ["BUS_URL"], logger=None)
app = FastStream(broker, logger=None)
done: asyncio.Queue[str] = asyncio.Queue()


class Place(Message):
    shelf: str


@contract("library.find", version=1, idempotent=True)
class FindBook(Request[Place]):
    title: str


router = Router("library")


def shelves() -> dict[str, str]:  # injected below by FastStream's own Depends
    return {"Emma": "A3", "Ulysses": "J7"}


@router.request(FindBook)  # a handler of the bus, with a contract, deadlines and its own queue
async def find(request: FindBook, shelves: dict[str, str] = Depends(shelves)) -> Place:
    return Place(shelf=shelves[request.title])


bus = attach(app, router)  # the application serves the router while it runs


@broker.subscriber("returned-books")  # a plain FastStream subscriber, which can use the bus
async def on_returned(title: str) -> None:
    place = await bus.request(FindBook(title=title), timeout=5)
    done.put_nowait(f"FastStream's subscriber: {title} goes to {place.shelf}")


async def main() -> None:
    async with app, Bus("reader") as reader:
        place = await reader.request(FindBook(title="Ulysses"), timeout=5)
        print(f"the bus's handler: Ulysses is on {place.shelf}")
        await broker.publish("Emma", "returned-books")
        async with asyncio.timeout(10):
            print(await done.get())


if __name__ == "__main__":  # in production: faststream run MODULE:app
    asyncio.run(main())
