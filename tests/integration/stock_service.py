"""The service `stock` before and after a change of its contracts, for the tests of old queues.

The targets for `bus topology` are `tests.integration.stock_service:earlier` and `…:router`.
"""

import asyncio

from bus import Event, Job, Request, RetryPolicy, Router, contract
from bus.contracts.contract import Catalog

catalog = Catalog()


@contract("shop.sold", version=1, catalog=catalog)
class SoldV1(Event):
    pass


@contract("shop.sold", version=2, catalog=catalog)
class SoldV2(Event):
    pass


@contract("stock.count", version=1, catalog=catalog)
class Count(Job[None]):
    pass


@contract("stock.find", version=1, catalog=catalog)
class Find(Request[None]):
    pass


sold = asyncio.Event()
"""Set when an event of the earlier version has arrived."""
earlier = Router("stock")
router = Router("stock")


@earlier.event(SoldV1, retry=RetryPolicy(attempts=2, first_delay=1))
async def on_sold_v1(_event: SoldV1) -> None:
    sold.set()


@earlier.job(Count, retry=RetryPolicy(attempts=2, first_delay=5))
async def count(_job: Count) -> None:
    pass


@earlier.request(Find)
async def find(_request: Find) -> None:
    pass


@earlier.event(SoldV2, retry=RetryPolicy(attempts=2, first_delay=1))
@router.event(SoldV2, retry=RetryPolicy(attempts=2, first_delay=1))
async def on_sold_v2(_event: SoldV2) -> None:
    pass
