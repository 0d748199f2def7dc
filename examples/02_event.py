"""Event: a fact that a service publishes to two subscriptions, each with its own queue.

Run it with BUS_URL set to a RabbitMQ and BUS_AUTH=off: python examples/02_event.py
"""

import asyncio

from bus import Bus, Context, Event, Router, contract, correlated


@contract("library.returned", version=1)
class BookReturned(Event):
    title: str


router = Router("desk")  # any service may subscribe, but only library may publish
heard: asyncio.Queue[str] = asyncio.Queue()


@router.event(BookReturned, subscription="shelve")
async def shelve(event: BookReturned, context: Context) -> None:
    correlation_id = context.envelope.correlation_id
    heard.put_nowait(f"shelve: {event.title} returns to its shelf (correlation {correlation_id})")


@router.event(BookReturned, subscription="notify")
async def notify(event: BookReturned, context: Context) -> None:
    correlation_id = context.envelope.correlation_id
    heard.put_nowait(f"notify: a reader waits for {event.title} (correlation {correlation_id})")


async def main() -> None:
    async with Bus("desk") as desk, desk.serving(router), Bus("library") as library:
        with correlated("visit-1"):  # sets the correlation id; the default is the event's id
            await library.publish(
                BookReturned(title="Emma")
            )  # returns when the broker has confirmed
        print("published")
        async with asyncio.timeout(10):
            print(*sorted([await heard.get(), await heard.get()]), sep="\n")


asyncio.run(main())
