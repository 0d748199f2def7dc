"""Services that produce a value of each metric: successes, errors, retries and two versions.

They record spans, and export them to nowhere, so that durations have exemplars.
"""

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


@grocer.job(Pack, retry=RetryPolicy(attempts=2, first_delay=1))
async def pack(job: Pack, context: Context) -> None:
    if job.title == "Torn":
        raise Unavailable("no paper is left")
    await context.bus.publish(Packed(title=job.title))


@till.job(Sell)
async def sell(job: Sell, context: Context) -> None:
    await context.bus.request(PriceV1(title=job.title))
    await context.bus.request(PriceV2(title=job.title))
    await context.bus.submit(Pack(title=job.title))
    for failing in (PriceV1(title="Unknown"), PriceV2(title="Torn")):
        with suppress(BusError):
            await context.bus.request(failing)


@till.event(Packed)
async def on_packed(event: Packed) -> None:
    assert event.title
