"""A small system with many defects on a real RabbitMQ."""

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import Any

import aio_pika
from pydantic import SecretStr

from bus import Bus, BusError, Job, Request, Router, ServiceConfig, Settings
from bus.cli.run import serve_until
from bus.messaging.context import correlated
from bus.messaging.envelope import new_id
from bus.operations.management_api import Management
from tests.integration import troubled_services as services
from tests.polling import until

DEAD = "9cbb8299-6317-41c6-8d6f-706ff91cfd5a"
HANDLED = "3f2c81a1-b284-4a7c-badb-971e0823dace"
UNKNOWN_END = "5d1e6c0a-7b0f-4c57-9d0c-2f6b8f0f6a11"
NOT_CONSUMED = "71f55cef-0474-4894-aa80-9add710b957d"
RETRIED = "8c9d1f57-3a52-4a09-8f0e-5b8a4c1d2e77"
SENT_TWICE = "b7a3d9e2-6c41-4f8b-a1d5-0e9f7c3b2a64"
STUCK = "c2e8f4b6-91d7-4a3e-8b5c-7f1a0d6e9c38"
"""Correlation ids of the messages that the page traces."""
LOST_TWICE, LOST_TOO_OFTEN = 2, 10
"""Numbers of lost deliveries: of a poison candidate, and the limit of the bus."""
PATIENT = 40
LOAD = {services.FindItem(item="a chair"): 6, services.FindStamp(item="a stamp"): 4}
"""Requests that are sent all the time, with the number of callers."""


class System:
    """The services of one virtual host, which end with the system."""

    def __init__(self, url: str, management_url: str, stack: AsyncExitStack) -> None:
        self.url, self.management_url = url, management_url
        self._stack = stack
        self.dead_id = ""
        """Id of the dead letter of a refund."""

    def bus(self, service: str, **settings: Any) -> Bus:
        """Return the bus of a service, which is not open."""
        url, management = SecretStr(self.url), SecretStr(self.management_url)
        defaults: dict[str, Any] = {"auth": "off", "stop_grace": 0, "service_version": "1.4"}
        return Bus(
            service,
            settings=Settings(url=url, management_url=management, **{**defaults, **settings}),
        )

    async def open(self, service: str, router: Router | None = None, **settings: Any) -> Bus:
        """Open the bus of a service until the end of the system, and serve a router."""
        bus = await self._stack.enter_async_context(self.bus(service, **settings))
        if router is not None:
            await self._stack.enter_async_context(bus.serving(router))
        return bus

    async def was_served(self, router: Router, **settings: Any) -> None:
        """Serve a router and stop: its work queues stay without consumers."""
        async with self.bus(router.name, **settings) as bus, bus.serving(router):
            pass

    async def submit(self, sender: Bus, job: Job[Any], correlation_id: str) -> str:
        """Submit a job with this correlation id, and return its id."""
        with correlated(correlation_id):
            return (await sender.submit(job)).id

    async def lose(self, queue: str, times: int) -> None:
        """Take the first message of a queue, and close the channel, as a killed process does."""
        async with await aio_pika.connect(self.url) as connection:
            for _ in range(times):
                channel = await connection.channel()
                found = await channel.get_queue(queue, ensure=False)
                while await found.get(fail=False) is None:
                    pass
                await channel.close()

    async def management(self, method: str, path: str, body: object = None) -> Any:
        """Call the management API. `path` begins after the virtual host."""
        kind, _, rest = path.partition("/")
        vhost = self.url.rpartition("/")[2]
        api = Management(self.management_url, self.url)
        return await api.call(method, f"{kind}/{vhost}/{rest}", body)

    async def bindings(self, exchange: str, queue: str) -> list[str]:
        """Return the paths of the bindings of a queue to an exchange in the management API."""
        path = f"bindings/e/{exchange}/q/{queue}"
        found = await self.management("GET", path)
        return [f"{path}/{each['properties_key']}" for each in found]

    async def open_with_probes(self, service: str, router: Router, port: int) -> None:
        """Serve a router, and answer health probes as `bus run` does."""
        stop = asyncio.Event()
        address, bus = ("127.0.0.1", port), self.bus(service)
        serving = asyncio.create_task(serve_until([(router, bus)], stop, address))

        async def end() -> None:
            stop.set()
            await serving

        self._stack.push_async_callback(end)
        await until(lambda: bus._consumers or serving.done(), "the start of the service")

    async def call_from_old_shop(self) -> None:
        """Send version 1 of a request."""
        old_shop = await self.open("old-shop")
        await old_shop.request(services.QuotePrice(number=1))

    async def drain(self, service: str, router: Router) -> None:
        """Stop a service while its handler runs, and the handler does not end."""
        bus = await self.open(service, stop_grace=services.LONG)
        started, stop = asyncio.Event(), asyncio.Event()

        async def serve() -> None:
            async with bus.serving(router):
                started.set()
                await stop.wait()

        serving = asyncio.create_task(serve())

        async def end() -> None:
            services.unblocked.set()
            stop.set()
            await serving

        self._stack.push_async_callback(end)
        await started.wait()
        await bus.submit(services.WriteReport(year=2025))
        await until(services.writing.is_set, "the handler")
        stop.set()

    def in_thread(self, service: str, router: Router) -> None:
        """Serve a router in a thread with an event loop of its own."""
        started, loop = threading.Event(), asyncio.new_event_loop()
        stop = asyncio.Event()

        async def serve() -> None:
            # The broker would close the connection of a blocked event loop after two heartbeats.
            async with self.bus(service, heartbeat=300) as bus, bus.serving(router):
                started.set()
                await stop.wait()

        def run() -> None:
            loop.run_until_complete(serve())
            loop.close()

        def end() -> None:
            services.unblocked.set()
            loop.call_soon_threadsafe(stop.set)
            thread.join(PATIENT)

        thread = threading.Thread(target=run)
        thread.start()
        self._stack.callback(end)
        assert started.wait(PATIENT)


@asynccontextmanager
async def troubled_system(url: str, management_url: str, health: int) -> AsyncIterator[System]:
    """Run the services with their defects, send messages, and yield the system under load.

    Args:
        url: Virtual host without queues.
        management_url: Address of the management API.
        health: Port for the probes of the service `budget`, which has a poison candidate.
    """
    services.unblocked.clear()
    services.writing.clear()
    async with AsyncExitStack() as stack:
        system = System(url, management_url, stack)
        routers = (services.post, services.index_earlier, services.orders, services.budget)
        await asyncio.gather(*(system.was_served(each) for each in routers))
        # The load must not end because the callers protect the slow services.
        impatient = [
            ServiceConfig(name=name, breaker="off", retries=0) for name in ("stock", "stamps")
        ]
        shop = await system.open("shop", services=impatient)
        await leave_messages(system, shop)
        orders = await start_services(system, health)
        await send_messages(system, shop, orders)
        async with asyncio.TaskGroup() as group:
            load = [
                group.create_task(call_for_ever(shop, request))
                for request, callers in LOAD.items()
                for _ in range(callers)
            ]
            yield system
            for task in load:
                task.cancel()


async def leave_messages(system: System, shop: Bus) -> None:
    """Leave jobs that lost their processes, and one that expires before a worker takes it."""
    await shop.submit(services.PlaceOrder(number=1))
    await shop.submit(services.CloseBudget(year=2025))
    await asyncio.gather(
        system.lose("orders.jobs.place.v1", LOST_TOO_OFTEN),
        system.lose("budget.jobs.close.v1", LOST_TWICE),
    )
    async with system.bus("shop", message_ttl=0.001) as hasty:
        await hasty.submit(services.PlaceOrder(number=2))


async def start_services(system: System, health: int) -> Bus:
    """Start the services, and return a bus of `orders`. All but `billing` have a defect."""
    system.in_thread("warehouse", services.warehouse)
    orders = await system.open("orders", services.orders, clock_leeway=0)
    await asyncio.gather(
        system.open("stock", services.stock, max_message=100_000, load_shedding="off"),
        system.open("stamps", services.stamps),
        system.open("billing", services.billing),
        system.open("index", services.index),
        system.open("archive", services.archive),
        system.open("audit", services.audit, discovery="off"),
        system.open("carriers", services.carriers),
        system.open("labels", services.labels),
        system.open("orders", services.orders, clock_leeway=0, service_version="1.5"),
        system.open_with_probes("budget", services.budget, health),
    )
    [binding] = await system.bindings("bus.events", "archive.events.orders.cancelled.v1")
    await system.management("DELETE", binding)
    return orders


async def send_messages(system: System, shop: Bus, orders: Bus) -> None:
    """Send each message that the page traces, and those that fail or wait."""
    await system.submit(shop, services.SendMail(number=1), NOT_CONSUMED)
    for correlation_id in (STUCK, new_id(), new_id()):
        await system.submit(shop, services.PackOrder(number=3), correlation_id)
    await system.submit(shop, services.ShipOrder(number=3), RETRIED)
    await system.submit(shop, services.PlaceOrder(number=3), HANDLED)
    await system.submit(shop, services.PlaceOrder(number=4), SENT_TWICE)
    await system.submit(shop, services.PlaceOrder(number=4), SENT_TWICE)
    system.dead_id = await system.submit(shop, services.RefundOrder(number=5), DEAD)
    await shop.submit(services.PlaceOrderOfEarlierVersion(order="six"))
    await orders.publish(services.OrderReturned(number=3))
    await call(shop, services.QuotePriceV2(number=1, currency="EUR"))
    await system.call_from_old_shop()
    with correlated(UNKNOWN_END), suppress(TimeoutError):
        async with asyncio.timeout(0.1):
            await shop.request(services.FindItem(item="a lamp"))
    await call(shop, services.CountItems(shelf="A3"), timeout=0.5)
    for number in range(8):
        await call(shop, services.AskRate(number=number))
        await shop.submit(services.PrintLabel(number=number))
    await system.drain("reports", services.reports)


async def call(bus: Bus, request: Request[Any], timeout: float = 5) -> None:
    with suppress(BusError):
        await bus.request(request, timeout=timeout)


async def call_for_ever(bus: Bus, request: Request[Any]) -> None:
    while True:
        await call(bus, request, timeout=0.6)
        await asyncio.sleep(0.01)  # a request can be refused at once
