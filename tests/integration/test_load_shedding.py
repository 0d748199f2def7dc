"""Overload of a slow handler on a real RabbitMQ."""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field

import pytest
from pydantic import SecretStr

from bus import (
    AdaptiveLimit,
    Bus,
    Context,
    Criticality,
    DeadlineExceeded,
    Request,
    ResourceExhausted,
    Router,
    ServiceConfig,
    Settings,
    contract,
    lowered_criticality,
)
from tests.polling import until
from tests.stolen_time import StolenTime

HANDLER_SECONDS, SLOTS = 0.05, 2
CAPACITY = SLOTS / HANDLER_SECONDS
"""Requests that the handler can answer in a second."""


@contract("smelter.fire", version=1, criticality="critical_plus")
class Fire(Request[None]):
    number: int


ADAPTIVE_START, ADAPTIVE_SECONDS = 16, 0.2


@contract("smelter.cast", version=1, idempotent=True)
class Cast(Request[None]):
    number: int


@dataclass
class Smelter:
    handled: set[int] = field(default_factory=set)
    time_left: list[float] = field(default_factory=list)
    """Seconds until the deadline when the handler started."""

    def router(self) -> Router:
        router = Router("smelter")

        @router.request(Fire, concurrency=SLOTS)
        async def fire(request: Fire, context: Context) -> None:
            self.handled.add(request.number)
            assert context.envelope.deadline is not None
            self.time_left.append(context.envelope.deadline / 1000 - time.time())
            await asyncio.sleep(HANDLER_SECONDS)

        @router.request(Cast, concurrency=AdaptiveLimit(max=64, start=ADAPTIVE_START))
        async def cast(request: Cast) -> None:
            self.handled.add(request.number)
            await asyncio.sleep(ADAPTIVE_SECONDS)

        return router


@dataclass
class Load:
    """Callers that send requests at a rate, each without a retry."""

    bus: Bus
    model: type[Fire] | type[Cast] = Fire
    answered: Counter[Criticality] = field(default_factory=Counter)
    sent: Counter[Criticality] = field(default_factory=Counter)
    refused: dict[int, ResourceExhausted] = field(default_factory=dict)
    late: int = 0
    disturbance: float = 0.0
    """Twice the share of the time that other programs took from this process.

    In this time no message moves, so the service answers fewer requests than it estimates. A bound
    is looser by this share.
    """

    async def run(
        self, rate: float, seconds: float, classes: Sequence[Criticality], *, timeout: float
    ) -> None:
        began, calls = time.perf_counter(), []
        async with StolenTime() as stolen:
            for number in range(int(rate * seconds)):
                await asyncio.sleep(max(0.0, began + number / rate - time.perf_counter()))
                criticality = classes[number % len(classes)]
                calls.append(asyncio.create_task(self.call(number, criticality, timeout)))
            await asyncio.gather(*calls)
        ended = time.perf_counter()
        self.disturbance = 2 * stolen.between(began, ended) / (ended - began)

    async def call(self, number: int, criticality: Criticality, timeout: float) -> None:
        self.sent[criticality] += 1
        try:
            with lowered_criticality(criticality):
                await self.bus.request(self.model(number=number), timeout=timeout)
        except ResourceExhausted as error:
            self.refused[number] = error
        except DeadlineExceeded:
            self.late += 1
        else:
            self.answered[criticality] += 1


@pytest.fixture
async def smelter(vhost_url: str) -> AsyncIterator[tuple[Smelter, Load, Bus]]:
    here = Smelter()
    settings = Settings(url=SecretStr(vhost_url))
    alone = Settings(url=SecretStr(vhost_url), services=[ServiceConfig("smelter", retries=0)])
    async with (
        Bus("smelter", settings=settings) as server,
        Bus("foundry", settings=alone) as caller,
        server.serving(here.router()),
    ):
        for number in range(10):  # so that the service knows how long its handler takes
            await caller.request(Fire(number=-number))
        yield here, Load(caller), server


async def test_in_an_overload_the_lowest_criticality_is_refused_first(
    smelter: tuple[Smelter, Load, Bus],
) -> None:
    here, load, server = smelter
    classes: tuple[Criticality, ...] = ("sheddable", "sheddable_plus", "critical")
    await load.run(1.8 * CAPACITY, 2, classes, timeout=1)
    share = {each: load.answered[each] / load.sent[each] for each in classes}
    assert share["sheddable"] <= share["sheddable_plus"] <= share["critical"]
    assert share["sheddable"] < share["critical"]
    assert share["critical"] >= 0.95 - load.disturbance
    assert load.late <= (0.02 + load.disturbance) * sum(load.sent.values())
    assert not here.handled & load.refused.keys()  # no refused request has run
    error = next(iter(load.refused.values()))
    assert (error.stated_executed, error.origin) == ("no", "service")
    assert error.retry_after is not None
    assert 0.1 <= error.retry_after <= 1
    shed = [each for each in server.report.stats().series if each.name == "messages.shed"]
    assert sum(each.value for each in shed) == len(load.refused)
    assert {each.labels["caller"] for each in shed} == {"foundry"}


async def test_requests_that_cannot_be_answered_in_time_are_refused_and_not_handled(
    smelter: tuple[Smelter, Load, Bus],
) -> None:
    here, load, server = smelter
    await load.run(3 * CAPACITY, 1.5, ["critical_plus"], timeout=0.6)
    shed = [each for each in server.report.stats().series if each.name == "messages.shed"]
    assert {each.labels["reason"] for each in shed} == {"deadline"}
    assert len(load.refused) >= 50 * (1 - load.disturbance)
    assert not here.handled & load.refused.keys()
    # The clocks are exact, but not the time of a delivery on a loaded machine.
    too_late = sum(each <= 0 for each in here.time_left)
    assert too_late <= (0.05 + load.disturbance) * len(here.time_left)
    # The handler worked almost only for callers that still waited.
    begun = sum(each >= 0 for each in here.handled)
    assert load.answered["critical_plus"] >= (0.8 - load.disturbance) * begun
    await until(lambda: not server._server.consumers[0].state.in_flight.tasks, "the last ack")


async def test_an_adaptive_limit_that_grew_above_its_prefetch_refuses_requests_in_an_overload(
    smelter: tuple[Smelter, Load, Bus],
) -> None:
    here, load, server = smelter
    load.model = Cast
    await asyncio.gather(*(load.call(-number, "critical", 5) for number in range(1, 11)))
    here.handled.clear()
    load.answered.clear()
    adaptive = next(each.state for each in server._server.consumers if each.state.adaptive)
    await load.run(3 * ADAPTIVE_START / ADAPTIVE_SECONDS, 2.5, ["critical"], timeout=1)
    assert adaptive.adaptive is not None
    assert adaptive.adaptive.settled > ADAPTIVE_START
    assert adaptive.slots.limit <= ADAPTIVE_START
    assert len(load.refused) >= 200 * (1 - load.disturbance)
    # The handler worked almost only for callers that still waited.
    assert load.answered["critical"] >= (0.8 - load.disturbance) * len(here.handled)
    await until(lambda: not adaptive.in_flight.tasks, "the last ack")
