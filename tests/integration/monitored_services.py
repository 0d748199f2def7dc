"""Services that produce a value of each metric: successes, errors, retries and two versions.

They record spans, and export them to nowhere, so that durations have exemplars.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider

from bus import (
    BusError,
    Context,
    Event,
    Job,
    Message,
    NotFound,
    RateLimit,
    Request,
    RetryPolicy,
    Router,
    Unavailable,
    contract,
)

__all__ = ["Pack", "Packed", "Price", "PriceV1", "PriceV2", "Sell", "grocer", "till"]


class Price(Message):
    cents: int


@contract("grocer.price", version=1, idempotent=True)
class PriceV1(Request[Price]):
    title: str


@contract("grocer.price", version=2, idempotent=True)
class PriceV2(Request[Price]):
    title: str
    currency: str = "EUR"


class Count(Message):
    books: int


@contract("grocer.count", version=1, idempotent=True, cache=5)
class CountBooks(Request[Count]):
    """A request that is answered from the cache most of the time."""

    title: str


@contract("grocer.order", version=1, idempotent=True)
class Order(Request[Count]):
    """A request whose service is down."""

    title: str


@contract("grocer.weigh", version=1, idempotent=True)
class Weigh(Request[Count]):
    """A request that is so slow that its callers send it twice, and the service sheds some."""

    title: str


@contract("grocer.pack", version=1)
class Pack(Job[None]):
    title: str


@contract("grocer.packed", version=1)
class Packed(Event):
    title: str


@contract("till.sell", version=1)
class Sell(Job[None]):
    """A job of the till, which asks the grocer in an old and in a new version."""

    title: str


@asynccontextmanager
async def recorded() -> AsyncIterator[None]:
    """Record spans in the process that serves the router, and not in the tests' process."""
    trace.set_tracer_provider(TracerProvider(shutdown_on_exit=False))
    yield


grocer = Router("grocer", lifespan=recorded)
till = Router("till", lifespan=recorded)


@grocer.request(PriceV1)
async def price(request: PriceV1) -> Price:
    if request.title == "Unknown":
        raise NotFound("no such book")
    return Price(cents=900)


@grocer.request(PriceV2)
async def price_in(request: PriceV2) -> Price:
    if request.title == "Torn":
        raise RuntimeError("a page is torn")
    return Price(cents=900)


@grocer.request(CountBooks, rate=RateLimit(1, per=60, burst=1))
async def count(request: CountBooks) -> Count:
    return Count(books=len(request.title))


@grocer.request(Order)
async def order(request: Order) -> Count:
    raise Unavailable(f"the publisher is closed ({len(request.title)})", executed="no")


@grocer.request(Weigh, concurrency=1)
async def weigh(request: Weigh) -> Count:
    await asyncio.sleep(0.1)
    return Count(books=len(request.title))


class ScalesBroken(Exception):
    """The error of a dependency that always works here."""


@grocer.job(
    Pack,
    retry=RetryPolicy(attempts=2, first_delay=1),
    dependency="scales",
    failures=(ScalesBroken,),
)
async def pack(job: Pack, context: Context) -> None:
    if job.title == "Torn":
        raise Unavailable("no paper is left")
    await context.bus.publish(Packed(title=job.title))


@till.job(Sell)
async def sell(job: Sell, context: Context) -> None:
    await context.bus.request(PriceV1(title=job.title))
    await context.bus.request(PriceV2(title=job.title))
    await context.bus.submit(Pack(title=job.title))
    weighing = (context.bus.request(Weigh(title=job.title), timeout=0.35) for _ in range(6))
    await asyncio.gather(*weighing, return_exceptions=True)
    for title in ("Emma", "Persuasion"):  # the second one is above the rate
        await context.bus.request(CountBooks(title=title), fallback=Count(books=0))
    for failing in (PriceV1(title="Unknown"), PriceV2(title="Torn"), Order(title=job.title)):
        with suppress(BusError):
            await context.bus.request(failing)


@till.event(Packed)
async def on_packed(event: Packed) -> None:
    assert event.title
