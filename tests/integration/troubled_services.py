"""Services with many defects, on which the page on troubleshooting is tried."""

import asyncio
import threading

from bus import (
    Catalog,
    Context,
    Event,
    Job,
    Message,
    Request,
    RetryPolicy,
    Router,
    Unavailable,
    contract,
)

LONG = 3600
writing = threading.Event()
"""Set while the handler of a report runs."""
unblocked = threading.Event()
"""Set at the end of a test, so that the handler that blocks its event loop returns."""


class Found(Message):
    amount: int


class Price(Message):
    cents: int


class Listed(Message):
    items: list[str]


@contract("stock.find", version=1, idempotent=True)
class FindItem(Request[Found]):
    """A request with a slow handler."""

    item: str


@contract("stock.list", version=1, idempotent=True)
class ListItems(Request[Listed]):
    """A request with a reply that is too large."""


@contract("billing.quote", version=1, idempotent=True)
class QuotePrice(Request[Price]):
    number: int


@contract("billing.quote", version=2, idempotent=True)
class QuotePriceV2(Request[Price]):
    """A request that a new caller sends before the service has a handler for it."""

    number: int
    currency: str


@contract("warehouse.count", version=1, idempotent=True)
class CountItems(Request[Found]):
    """A request with a handler that blocks its event loop."""

    shelf: str


@contract("orders.place", version=1)
class PlaceOrder(Job[None]):
    number: int


@contract("orders.place", version=1, catalog=Catalog())
class PlaceOrderOfEarlierVersion(Job[None]):
    """The job as a sender with old code submits it."""

    order: str


@contract("orders.pack", version=1)
class PackOrder(Job[None]):
    """A job with a handler that does not end."""

    number: int


@contract("orders.ship", version=1)
class ShipOrder(Job[None]):
    """A job that fails in each attempt, and is retried."""

    number: int


@contract("orders.refund", version=1)
class RefundOrder(Job[None]):
    """A job that fails in its only attempt."""

    number: int


@contract("orders.placed", version=1)
class OrderPlaced(Event):
    number: int


@contract("orders.placed", version=2)
class OrderPlacedV2(Event):
    number: int


@contract("orders.cancelled", version=1)
class OrderCancelled(Event):
    """An event with a queue that lost its binding."""

    number: int


@contract("orders.returned", version=1)
class OrderReturned(Event):
    """An event without a subscription."""

    number: int


@contract("budget.close", version=1)
class CloseBudget(Job[None]):
    """A job with a handler that ends its process."""

    year: int


@contract("budget.book", version=1)
class Book(Job[None]):
    number: int


@contract("post.send", version=1)
class SendMail(Job[None]):
    """A job of a service that does not run."""

    number: int


@contract("reports.write", version=1)
class WriteReport(Job[None]):
    """A job with a handler that ignores the stop of its service."""

    year: int


@contract("press.print", version=1)
class PrintList(Job[None]):
    """A job with a handler that can take longer than the broker's consumer timeout."""

    number: int


@contract("carriers.rate", version=1, idempotent=True)
class AskRate(Request[Price]):
    """A request to a service that is down."""

    number: int


@contract("labels.print", version=1)
class PrintLabel(Job[None]):
    """A job whose dependency is down."""

    number: int


@contract("stamps.find", version=1, idempotent=True)
class FindStamp(Request[Found]):
    """A request to a service that is overloaded."""

    item: str


class PrinterDown(Exception):
    """The label printer does not answer."""


carriers, labels, stamps = Router("carriers"), Router("labels"), Router("stamps")
stock, billing, warehouse = Router("stock"), Router("billing"), Router("warehouse")
orders, budget, post, press = Router("orders"), Router("budget"), Router("post"), Router("press")
reports = Router("reports")
index_earlier, index = Router("index"), Router("index")
archive, audit = Router("archive"), Router("audit")


@stock.request(FindItem, concurrency=2)
async def find(request: FindItem) -> Found:
    await asyncio.sleep(0.3)
    return Found(amount=len(request.item))


@stock.request(ListItems)
async def list_items(_request: ListItems) -> Listed:
    return Listed(items=["an item"] * 10_000)


@billing.request(QuotePrice)
async def quote(request: QuotePrice) -> Price:
    return Price(cents=request.number)


@billing.event(OrderPlaced)
async def on_order(_event: OrderPlaced) -> None: ...


@warehouse.request(CountItems)
async def count(request: CountItems) -> Found:
    unblocked.wait(LONG)
    return Found(amount=len(request.shelf))


@orders.job(PlaceOrder)
async def place(job: PlaceOrder, context: Context) -> None:
    await context.bus.publish(OrderPlaced(number=job.number))


@orders.job(PackOrder)
async def pack(_job: PackOrder) -> None:
    await asyncio.sleep(LONG)


@orders.job(ShipOrder, retry=RetryPolicy(attempts=3, first_delay=600))
async def ship(_job: ShipOrder) -> None:
    raise ConnectionError("the carrier does not answer")


@orders.job(RefundOrder, retry=RetryPolicy(attempts=1))
async def refund(job: RefundOrder) -> None:
    raise ZeroDivisionError(job.number)


@budget.job(CloseBudget)
async def close(_job: CloseBudget) -> None:
    await asyncio.sleep(LONG)


@budget.job(Book)
async def book(_job: Book) -> None: ...


@post.job(SendMail)
async def send(_job: SendMail) -> None: ...


@reports.job(WriteReport)
async def write(_job: WriteReport) -> None:
    writing.set()
    await asyncio.to_thread(unblocked.wait, LONG)


@press.job(PrintList, timeout=2 * LONG)
async def print_list(_job: PrintList) -> None: ...


@index_earlier.event(OrderPlaced)
async def on_placed(_event: OrderPlaced) -> None: ...


@index.event(OrderPlacedV2)
async def on_placed_v2(_event: OrderPlacedV2) -> None: ...


@archive.event(OrderCancelled)
async def on_cancelled(_event: OrderCancelled) -> None: ...


@audit.event(OrderPlaced)
async def on_order_placed(_event: OrderPlaced) -> None: ...


@carriers.request(AskRate)
async def rate(_request: AskRate) -> Price:
    raise Unavailable("the carriers do not answer", executed="no")


@labels.job(PrintLabel, concurrency=1, dependency="printer", failures=(PrinterDown,))
async def print_label(_job: PrintLabel) -> None:
    raise PrinterDown


@stamps.request(FindStamp, concurrency=1)
async def find_stamp(request: FindStamp) -> Found:
    await asyncio.sleep(0.2)
    return Found(amount=len(request.item))
