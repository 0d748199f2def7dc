"""Messages that a handler sends inherit the criticality of the message that it handles."""

from typing import Any

from bus import (
    Context,
    Criticality,
    Event,
    Job,
    Request,
    Router,
    SyncBus,
    contract,
    lowered_criticality,
)
from bus.testing import MemoryBuses, SyncMemoryBuses
from tests.unit.runtime.in_memory import in_memory


@contract("press.order", version=1)
class Order(Request[None]):
    pass


@contract("press.ink", version=1, criticality="critical_plus")
class GetInk(Request[None]):
    pass


@contract("press.bind", version=1)
class Bind(Job[None]):
    pass


@contract("press.ordered", version=1)
class Ordered(Event):
    pass


class Press:
    """A service with handlers that send messages. It keeps the criticality of each message."""

    def __init__(self) -> None:
        self.seen: dict[str, Criticality | None] = {}
        self.headers: dict[str, Any] = {}
        self.router = Router("press")

        @self.router.request(Order)
        async def order(_: Order, context: Context) -> None:
            self.note(context)
            await context.bus.request(GetInk())
            await context.bus.submit(Bind())
            await context.bus.publish(Ordered())

        @self.router.request(GetInk)
        async def ink(_: GetInk, context: Context) -> None:
            self.note(context)

        @self.router.job(Bind)
        async def bind(_: Bind, context: Context) -> None:
            self.note(context)

        @self.router.event(Ordered)
        async def ordered(_: Ordered, context: Context) -> None:
            self.note(context)

    def note(self, context: Context) -> None:
        self.seen[context.envelope.type] = context.criticality
        self.headers[context.envelope.type] = context.envelope.headers.get("criticality")


@in_memory
async def test_requests_jobs_and_events_of_a_handler_inherit_its_criticality(
    buses: MemoryBuses,
) -> None:
    press = Press()
    server, shop = await buses.bus("press"), await buses.bus("shop")
    await buses.serve(server, press.router)
    with lowered_criticality("sheddable"):
        await shop.request(Order())
    await buses.settled()
    assert press.seen == {
        "press.order.v1": "sheddable",
        "press.ink.v1": "sheddable",
        "press.bind.v1": "sheddable",
        "press.ordered.v1": "sheddable",
    }


@in_memory
async def test_a_message_with_the_criticality_of_its_contract_has_no_header(
    buses: MemoryBuses,
) -> None:
    press = Press()
    server, shop = await buses.bus("press"), await buses.bus("shop")
    await buses.serve(server, press.router)
    await shop.request(GetInk())
    assert press.seen == {"press.ink.v1": "critical_plus"}
    await shop.request(Order())
    await buses.settled()
    assert press.headers == {
        "press.order.v1": None,
        "press.ink.v1": "critical",  # lowered by the critical request that caused it
        "press.bind.v1": None,
        "press.ordered.v1": None,
    }


@in_memory
async def test_a_service_that_starts_inside_a_block_does_not_lower_its_handlers(
    buses: MemoryBuses,
) -> None:
    press = Press()
    server, shop = await buses.bus("press"), await buses.bus("shop")
    with lowered_criticality("sheddable"):
        await buses.serve(server, press.router)
    await shop.request(Order())
    await buses.settled()
    assert press.seen["press.order.v1"] == press.seen["press.bind.v1"] == "critical"


def test_a_block_around_a_call_of_a_sync_bus_lowers_its_criticality() -> None:
    press = Press()
    with SyncMemoryBuses() as buses:
        buses.serve(press.router)
        shop = SyncBus("shop")
        buses.connect(shop)
        with lowered_criticality("sheddable_plus"):
            shop.request(GetInk())
    assert press.seen == {"press.ink.v1": "sheddable_plus"}
