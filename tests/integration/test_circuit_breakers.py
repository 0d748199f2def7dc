"""Tests of the circuit breaker with a real broker that is killed or frozen, and a dead service."""

import asyncio
import signal
import time
from collections import Counter
from dataclasses import replace
from typing import Self

import pytest
from pydantic import SecretStr

from bus import Bus, Message, Request, Router, ServiceConfig, Settings, contract
from bus.errors import BusError, Unavailable, code_of
from bus.messaging.breaker_info import BreakerInfo
from bus.operations.brokers.private_node import PrivateNode
from bus.transports.rabbitmq import RabbitMQTransport
from tests.integration.command import running
from tests.integration.slow_service import WhoAreYou
from tests.polling import until
from tests.stolen_time import StolenTime

CALLERS = 100
TIMEOUT = 0.5
"""Configured seconds of a request, much shorter than the outage of the broker."""


QUICK = ServiceConfig("breakers", timeout=TIMEOUT, breaker_open_time=0.5)
TARGET = "tests.integration.slow_service:router"


class Echo(Message):
    number: int


@contract("breakers.echo", version=1, idempotent=True)
class Say(Request[Echo]):
    number: int


class Service:
    """A service that answers at once, or not at all while it hangs."""

    def __init__(self) -> None:
        self.router = Router("breakers")
        self.works = asyncio.Event()
        self.works.set()
        self.router.request(Say, concurrency=CALLERS)(self.say)

    async def say(self, request: Say) -> Echo:
        await self.works.wait()
        return Echo(number=request.number)


def settings_of(url: str, *configs: ServiceConfig) -> Settings:
    return Settings(url=SecretStr(url), services=list(configs))


def breakers_of(bus: Bus) -> list[BreakerInfo]:
    return list(bus.report.breakers().breakers)


class Load:
    """Callers that send one request after the other."""

    def __init__(self, bus: Bus) -> None:
        self._bus, self._is_running = bus, True
        self.results = Counter[str]()

    async def __aenter__(self) -> Self:
        self._tasks = [asyncio.create_task(self._call(number)) for number in range(CALLERS)]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._is_running = False
        await asyncio.gather(*self._tasks)

    async def _call(self, number: int) -> None:
        while self._is_running:
            try:
                await self._bus.request(Say(number=number))
            except BusError as error:
                self.results[f"{code_of(error)} {error.origin}"] += 1
                await asyncio.sleep(0.01)
            else:
                self.results["ok"] += 1

    async def succeed(self) -> None:
        """Wait until each caller has had a success on average."""
        goal = self.results["ok"] + CALLERS
        await until(lambda: self.results["ok"] >= goal, f"successes: {self.results}", poll=0.005)


def age(bus: Bus) -> None:
    """Let the connections of a bus appear old, because time-outs after a connect do not count."""
    transport = bus._transport
    assert isinstance(transport, RabbitMQTransport)
    assert transport._rpc.connected_at is not None
    transport._rpc.connected_at -= 60


async def rejected(caller: Bus) -> tuple[float, float, BusError]:
    """Send requests until the breaker rejects one. Return its begin, end and error.

    On a busy machine the breaker can be half-open by now. Then the first request is a probe.
    """
    while True:
        began = time.perf_counter()
        with pytest.raises(BusError) as caught:
            await caller.request(Say(number=0))
        ended = time.perf_counter()
        if caught.value.origin == "local":
            assert isinstance(caught.value, Unavailable)
            return began, ended, caught.value


def retries_of(bus: Bus) -> int:
    """Return the number of retries that took a token, and of those that found none."""
    budget = bus._client._destinations.of("breakers.echo.v1").budget
    assert budget is not None
    series = bus.report.stats().series
    return budget.denied + sum(int(each.value) for each in series if each.name == "calls.retried")


async def test_a_broker_that_is_frozen_and_then_killed_opens_no_breaker_and_costs_no_budget(
    private_node: PrivateNode,
) -> None:
    service, settings = Service(), settings_of(private_node.url, QUICK)
    async with (
        Bus("breakers", settings=settings) as server,
        server.serving(service.router),
        Bus("caller", settings=settings) as caller,
        Load(caller) as load,
    ):
        age(caller)
        await load.succeed()
        await private_node.pause()
        try:
            await until(lambda: load.results["deadline_exceeded broker"] >= 2 * CALLERS, "freeze")
        finally:
            await private_node.resume()
        await load.succeed()

        await private_node.kill()
        await until(lambda: not caller.ready, "the caller to notice")
        await private_node.start()
        async with StolenTime() as stolen:
            returned = time.perf_counter()
            await load.succeed()
            worked = time.perf_counter()
        # Other programs take about as much time from the broker as from this process.
        assert worked - returned < 2 + 2 * stolen.between(returned, worked)

    assert set(load.results) <= {
        *("ok", "deadline_exceeded broker", "unavailable broker", "deadline_exceeded local"),
    }
    (breaker,) = breakers_of(caller)
    assert (breaker.state, breaker.opened, breaker.failures) == ("closed", 0, 0)
    assert retries_of(caller) == 0


async def test_a_breaker_opens_for_a_service_that_hangs_and_closes_when_it_works_again(
    broker: str,
) -> None:
    service, settings = Service(), settings_of(broker, QUICK)
    async with (
        Bus("breakers", settings=settings) as server,
        server.serving(service.router),
        Bus("caller", settings=settings) as caller,
        Load(caller) as load,
    ):
        age(caller)
        await load.succeed()
        service.works.clear()
        await until(lambda: load.results["unavailable local"] >= CALLERS, "rejected requests")
        (breaker,) = breakers_of(caller)
        assert breaker.cause == "5 consecutive failures (deadline_exceeded)"
        async with StolenTime() as stolen:
            began, ended, error = await rejected(caller)
        assert ended - began < TIMEOUT / 2 + stolen.between(began, ended)
        assert error.retry_after is not None
        service.works.set()
        await load.succeed()
        assert [each.state for each in breakers_of(caller)] == ["closed"]


async def test_a_breaker_opens_for_a_service_that_was_killed_and_closes_when_it_is_back(
    vhost_url: str,
) -> None:
    settings = settings_of(vhost_url, replace(QUICK, name="slow"))
    async with Bus("caller", settings=settings) as caller:

        async def is_rejected() -> bool:
            try:
                await caller.request(WhoAreYou())
            except BusError as error:
                return error.origin == "local"
            return False

        async with running("run", TARGET, BUS_URL=vhost_url) as worker:
            await caller.request(WhoAreYou(), timeout=60, wait_for_service=True)
            age(caller)
            worker.send_signal(signal.SIGKILL)
            await worker.wait()
        while not await is_rejected():
            pass
        assert [each.state for each in breakers_of(caller)] == ["open"]
        async with running("run", TARGET, BUS_URL=vhost_url):
            await until(lambda: breakers_of(caller)[0].state == "half-open", "the next probe")
            while breakers_of(caller)[0].state != "closed":
                await is_rejected()
