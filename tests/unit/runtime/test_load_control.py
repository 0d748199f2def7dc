"""Callers of an overloaded service, with all their default policies."""

import asyncio
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress

from bus import Criticality, RateLimit, ServiceConfig, lowered_criticality
from bus.contracts.contract import Request, contract
from bus.errors import BusError, ResourceExhausted
from bus.runtime.bus import Bus
from bus.runtime.router import Router
from bus.testing import MemoryBuses
from tests.unit.runtime.in_memory import in_memory

CAPACITY = 20
"""Requests that the handler can answer in a second."""
NO_RETRIES = [ServiceConfig("forge", retries=0)]


@contract("forge.press", version=1, criticality="critical_plus")
class Press(Request[None]): ...


@contract("forge.heat", version=1)
class Heat(Request[None]): ...


def forge() -> Router:
    router = Router("forge")

    @router.request(Press, concurrency=2)
    async def press(request: Press) -> None:
        await asyncio.sleep(2 / CAPACITY)

    @router.request(Heat, rate=RateLimit(10, per=1, burst=5))
    async def heat(request: Heat) -> None: ...

    return router


async def load(
    bus: Bus, rate: float, seconds: float, classes: Sequence[Criticality]
) -> Counter[tuple[Criticality, str]]:
    """Send requests at a rate, and return how many of each class had each outcome."""
    results: Counter[tuple[Criticality, str]] = Counter()

    async def call(criticality: Criticality) -> None:
        try:
            with lowered_criticality(criticality):
                await bus.request(Press(), timeout=3)
        except BusError as error:
            results[criticality, f"{error.code} ({error.origin})"] += 1
        else:
            results[criticality, "ok"] += 1

    async with asyncio.TaskGroup() as tasks:
        for number in range(int(rate * seconds)):
            tasks.create_task(call(classes[number % len(classes)]))
            await asyncio.sleep(1 / rate)
    return results


@in_memory
async def test_critical_requests_are_answered_while_their_operation_refuses_sheddable_ones(
    buses: MemoryBuses,
) -> None:
    await buses.serve(await buses.bus("forge"), forge())
    bus = await buses.bus("caller", services=NO_RETRIES)
    for _ in range(10):  # so that the service knows how long its handler takes
        await bus.request(Press())
    classes: list[Criticality] = ["critical_plus", "sheddable", "sheddable", "sheddable"]
    results = await load(bus, 3 * CAPACITY, 10, classes)
    assert results["sheddable", "resource_exhausted (service)"] >= 250
    assert results["critical_plus", "ok"] == 150


@in_memory
async def test_a_caller_above_its_rate_limit_is_served_at_this_rate(buses: MemoryBuses) -> None:
    await buses.serve(await buses.bus("forge"), forge())
    bus = await buses.bus("caller", services=NO_RETRIES)
    answered = 0
    for _ in range(250):
        with suppress(ResourceExhausted):  # the circuit breaker would raise `Unavailable`
            await bus.request(Heat())
            answered += 1
        await asyncio.sleep(0.02)
    assert 50 <= answered <= 56
