"""Errors of a nested call, and the circuit breaker of the caller."""

import pytest

from bus import (
    Bus,
    BusError,
    Context,
    FailedPrecondition,
    Message,
    Request,
    ResourceExhausted,
    Router,
    ServiceDefaults,
    contract,
)
from bus.testing import MemoryBuses
from tests.unit.runtime.in_memory import in_memory


class Price(Message):
    cents: int


@contract("rates.get", version=1)
class GetRate(Request[Price]):
    currency: str = "eur"


@contract("billing.quote", version=1)
class Quote(Request[Price]):
    currency: str = "eur"
    is_translated: bool


async def shop_of(buses: MemoryBuses) -> Bus:
    """Return the bus of a caller of `billing`, which calls a service that is full for a day."""
    rates, billing = Router("rates"), Router("billing")

    @rates.request(GetRate)
    async def get(_request: GetRate) -> Price:
        raise ResourceExhausted("full", executed="no", retry_after=86_400)

    @billing.request(Quote)
    async def quote(request: Quote, context: Context) -> Price:
        if request.currency == "eur":
            return Price(cents=1)
        try:
            return await context.bus.request(GetRate(currency=request.currency))
        except BusError as error:
            if request.is_translated:
                raise FailedPrecondition("the rates are not available") from error
            raise

    for name, router in (("rates", rates), ("billing", billing)):
        await buses.serve(await buses.bus(name), router)
    return await buses.bus("shop", service_defaults=ServiceDefaults(retries=0))


async def fail(shop: Bus, *, is_translated: bool) -> None:
    for _ in range(6):
        with pytest.raises(BusError):
            await shop.request(Quote(currency="usd", is_translated=is_translated), timeout=5)


@in_memory
async def test_a_translated_error_of_a_nested_call_opens_no_breaker_of_the_caller(
    buses: MemoryBuses,
) -> None:
    shop = await shop_of(buses)
    await fail(shop, is_translated=True)
    assert await shop.request(Quote(is_translated=True), timeout=5) == Price(cents=1)


@in_memory
async def test_a_nested_retry_after_keeps_the_breaker_of_the_caller_open_for_36_s_at_most(
    buses: MemoryBuses,
) -> None:
    shop = await shop_of(buses)
    await fail(shop, is_translated=False)
    (breaker,) = shop.report.breakers().breakers
    assert (breaker.state, 30 <= (breaker.wait or 0) <= 36) == ("open", True)
