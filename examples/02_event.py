"""An event: a fact that a service tells, and that two subscriptions hear, each in a queue of its own.

Run it with BUS_URL set to a RabbitMQ and BUS_AUTH=off: python examples/02_event.py
"""

import asyncio

from bus import Bus, Context, Event, Router, contract, correlated


@contract("library.returned", version=1)
class BookReturned(Event):
    title: str


router = Router("desk")  # any service may care about library's event; only library may publish it
heard: asyncio.Queue[str] = asyncio.Queue()


@router.event(BookReturned, subscription="shelve")
async def shelve(event: BookReturned, context: Context) -> None:
    heard.put_nowait(f"shelve: {event.title} goes back to its shelf (correlation {context.envelope.correlation_id})")


@router.event(BookReturned, subscription="notify")
async def notify(event: BookReturned, context: Context) -> None:
    heard.put_nowait(f"notify: somebody waits for {event.title} (correlation {context.envelope.correlation_id})")


async def main() -> None:
    async with Bus("desk") as desk, desk.serving(router), Bus("library") as library:
        with correlated("visit-1"):  # else the event's own id; handlers pass it on by themselves
            await library.publish(BookReturned(title="Emma"))  # returns when the broker has confirmed
        print("published")
        async with asyncio.timeout(10):
            print(*sorted([await heard.get(), await heard.get()]), sep="\n")


asyncio.run(main())
