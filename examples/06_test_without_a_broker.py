"""Tests without a broker: they use a model of RabbitMQ, simulated failures and a virtual clock.

Run it: python examples/06_test_without_a_broker.py (pytest: docs/how-to/test-without-a-broker.md)
"""

import asyncio
import time
from collections.abc import Awaitable, Callable

from bus import Context, Job, Message, RetryPolicy, Router, Unavailable, contract
from bus.testing import MemoryBuses, VirtualLoop, wall_clock


class Place(Message):
    shelf: str


@contract("library.bind", version=1)
class BindBook(Job[Place]):
    title: str


router = Router("library")


@router.job(BindBook, retry=RetryPolicy(attempts=2, first_delay=3600))
async def bind(_job: BindBook, context: Context) -> Place:
    if context.envelope.attempt == 1:
        raise Unavailable("the glue is cold")
    return Place(shelf="B1")


async def an_hour_in_a_retry_tier(buses: MemoryBuses) -> None:
    job = await (await buses.bus("reader")).submit(BindBook(title="Emma"))
    there, here = wall_clock(), time.monotonic()
    place = await job.result()
    hours, ours = round((wall_clock() - there) / 3600), round((time.monotonic() - here) / 3600)
    print(f"bound on shelf {place.shelf}: {hours} h on the virtual clock, {ours} h on the real one")


async def a_broker_that_is_away(buses: MemoryBuses) -> None:
    reader = await buses.bus("reader")
    buses.broker.stop()
    try:
        await reader.submit(BindBook(title="Emma"), timeout=60)  # virtual seconds pass at once
    except Unavailable as error:
        print(f"error: {error}\ncertainly not sent: {not error.maybe_executed}")


async def run(test: Callable[[MemoryBuses], Awaitable[None]]) -> None:
    if isinstance(loop := asyncio.get_running_loop(), VirtualLoop):
        loop.skip_waits()
    async with MemoryBuses(clock=wall_clock) as buses:
        await buses.serve(await buses.bus("library"), router)
        await test(buses)


for each in (an_hour_in_a_retry_tier, a_broker_that_is_away):
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        runner.run(run(each))
