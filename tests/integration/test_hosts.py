"""Services with several hosts in `BUS_URL`: a lost host, and a host of an unrelated broker.

Each host is a proxy in front of a real RabbitMQ, so that a test can take it away.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from urllib.parse import quote

import pytest
from pydantic import SecretStr

from bus import Bus, Event, Job, Message, Request, Router, Settings, contract
from bus.messaging.broker_addresses import parse_urls
from bus.messaging.ports.transport import Transport
from bus.operations.brokers.private_node import PrivateNode
from bus.operations.management_api import Management
from bus.transports.faststream import FastStreamTransport, broker_of_its_own
from bus.transports.rabbitmq import RabbitMQTransport
from tests.conformance.proxy import Proxy
from tests.polling import BRIEF, until

CALLS = 20


class Doubled(Message):
    value: int


@contract("hosts.double", version=1, idempotent=True)
class Double(Request[Doubled]):
    value: int


@contract("hosts.triple", version=1)
class Triple(Job[Doubled]):
    value: int


@contract("hosts.seen", version=1)
class Seen(Event):
    value: int


class Work:
    """A service that records what it has handled."""

    def __init__(self) -> None:
        self.router = Router("hosts")
        self.seen, self.tripled = set[int](), set[int]()
        self.go_on = asyncio.Event()
        self.router.request(Double)(self.double)
        self.router.job(Triple)(self.triple)
        self.router.event(Seen)(self.see)

    async def double(self, request: Double) -> Doubled:
        return Doubled(value=2 * request.value)

    async def triple(self, job: Triple) -> Doubled:
        await self.go_on.wait()
        self.tripled.add(job.value)
        return Doubled(value=3 * job.value)

    async def see(self, event: Seen) -> None:
        self.seen.add(event.value)


def on_rabbitmq(settings: Settings, name: str) -> Transport:
    return RabbitMQTransport(settings, name=name)


def on_faststream(settings: Settings, name: str) -> Transport:
    broker = broker_of_its_own(settings, name=name)
    return FastStreamTransport(broker, settings=settings, name=name, own=True)


@asynccontextmanager
async def hosts(vhost_url: str, count: int) -> AsyncIterator[tuple[str, list[Proxy]]]:
    """Yield a URL with several hosts, which are proxies to the same broker, and the proxies."""
    (url,) = parse_urls(vhost_url)
    host, _, port = url.place.rpartition(":")
    proxies = [Proxy(host, int(port)) for _ in range(count)]
    for proxy in proxies:
        await proxy.open()
    try:
        names = ",".join(f"127.0.0.1:{proxy.port}" for proxy in proxies)
        yield f"amqp://{url.credentials}@{names}{url.path}", proxies
    finally:
        for proxy in proxies:
            await proxy.close()


@pytest.mark.parametrize("transport", [on_rabbitmq, on_faststream])
async def test_requests_events_and_jobs_go_on_at_the_next_host_and_nothing_is_lost(
    vhost_url: str, transport: Callable[[Settings, str], Transport]
) -> None:
    work = Work()
    async with hosts(vhost_url, 2) as (url, (first, second)):
        settings = Settings(url=SecretStr(url), publish_timeout=30, request_timeout=30)
        async with (
            Bus("hosts", settings=settings, transport=transport(settings, "hosts")) as worker,
            worker.serving(work.router),
            Bus("caller", settings=settings, transport=transport(settings, "caller")) as caller,
        ):
            jobs = [await caller.submit(Triple(value=value)) for value in range(CALLS)]
            assert not second._pipes
            await first.close()
            await until(lambda: not worker.ready, "the loss of the first host", poll=BRIEF)
            await asyncio.gather(*(worker.publish(Seen(value=value)) for value in range(CALLS)))
            replies = await asyncio.gather(
                *(caller.request(Double(value=value), timeout=30) for value in range(CALLS))
            )
            work.go_on.set()
            results = [await job.result(timeout=60) for job in jobs]
            await until(lambda: len(work.seen) == CALLS, "the events")
            assert worker.ready
            assert second._pipes

    assert [reply.value for reply in replies] == [2 * value for value in range(CALLS)]
    assert [result.value for result in results] == [3 * value for value in range(CALLS)]
    assert work.tripled == {*range(CALLS)}


async def test_a_host_of_an_unrelated_broker_gets_no_message_and_the_service_is_not_ready(
    vhost_url: str, private_node: PrivateNode, caplog: pytest.LogCaptureFixture
) -> None:
    work = Work()
    (other,) = parse_urls(private_node.url)
    vhost = parse_urls(vhost_url)[0].virtual_host
    api = Management(private_node.management_url, private_node.url)
    await api.add_vhost(vhost)
    async with hosts(vhost_url, 1) as (url, (proxy,)):
        settings = Settings(url=SecretStr(f"{url};{other.with_virtual_host(vhost).text}"))
        async with Bus("hosts", settings=settings) as worker, worker.serving(work.router):
            await proxy.close()
            await until(
                lambda: caplog.text.count(f"host {other.place} belongs to the cluster ") >= 3,
                "the refusal of the other broker by each connection",
            )
            assert not worker.ready
            publishing = asyncio.create_task(worker.publish(Seen(value=1), timeout=40))
            await proxy.open()
            await publishing
            await until(lambda: work.seen == {1} and worker.ready, "the right broker")
    assert await api.call("GET", f"queues/{quote(vhost, safe='')}") == []
    await api.delete_vhost(vhost)
