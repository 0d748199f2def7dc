"""A small system under load: a slow service, a failing one, and one with two versions.

`python -m tests.integration.live_system` runs it on the broker in BUS_URL until Ctrl-C. The
screenshot of `bus top` shows it.
"""

import asyncio
import itertools
import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress

from pydantic import SecretStr

from bus import Bus, BusError, Context, Event, Job, Message, Request, Router, Settings, contract

__all__ = ["QuotePrice", "system"]


class Found(Message):
    amount: int


@contract("depot.find", version=1, idempotent=True)
class FindItem(Request[Found]):
    """The amount of an item in depot. The service is slow."""

    item: str


class Price(Message):
    cents: int


@contract("cashier.quote", version=1, idempotent=True)
class QuotePrice(Request[Price]):
    """The price of an item. The service fails for each third item."""

    number: int


@contract("dispatch.place", version=1)
class PlaceOrder(Job[None]):
    """The work of placing an order. Two versions of the service do it."""

    number: int


@contract("dispatch.placed", version=1)
class OrderPlaced(Event):
    number: int


depot, cashier, dispatch = Router("depot"), Router("cashier"), Router("dispatch")


@depot.request(FindItem, concurrency=4)
async def find(request: FindItem) -> Found:
    await asyncio.sleep(0.25)
    return Found(amount=len(request.item))


@cashier.request(QuotePrice)
async def quote(request: QuotePrice) -> Price:
    if request.number % 3 == 0:
        raise RuntimeError("the price list is broken")
    return Price(cents=request.number)


@cashier.event(OrderPlaced, subscription="invoices")
async def on_placed(event: OrderPlaced) -> None: ...


@dispatch.job(PlaceOrder)
async def place(job: PlaceOrder, context: Context) -> None:
    if job.number % 20 == 7:
        raise BusError("the order is invalid")
    await context.bus.publish(OrderPlaced(number=job.number))


@asynccontextmanager
async def system(url: str) -> AsyncIterator[Bus]:
    """Serve the three services, and yield the bus of a fourth one, which calls them."""
    async with AsyncExitStack() as stack:
        for router, version in (
            (depot, "2.3"),
            (cashier, "1.0"),
            (dispatch, "1.4"),
            (dispatch, "1.5"),
        ):
            bus = await stack.enter_async_context(open_bus(router.name, url, version))
            await stack.enter_async_context(bus.serving(router))
        yield await stack.enter_async_context(open_bus("shop", url, "3.1"))


@asynccontextmanager
async def open_bus(service: str, url: str, version: str) -> AsyncIterator[Bus]:
    settings = Settings(auth="off", url=SecretStr(url), service_version=version)
    async with Bus(service, settings=settings) as bus:
        yield bus


async def call(bus: Bus, number: int) -> None:
    """Use each service once."""
    with suppress(BusError):
        await bus.request(FindItem(item=f"item {number}"), timeout=5)
    with suppress(BusError):
        await bus.request(QuotePrice(number=number), timeout=5)
    with suppress(BusError):
        await bus.submit(PlaceOrder(number=number))


async def main() -> None:
    """Run the system under load until Ctrl-C."""
    numbers = itertools.count()

    async def load(bus: Bus) -> None:
        while True:
            await call(bus, next(numbers))

    async with system(os.environ["BUS_URL"]) as bus, asyncio.TaskGroup() as group:
        for _ in range(8):
            group.create_task(load(bus))


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        asyncio.run(main())
