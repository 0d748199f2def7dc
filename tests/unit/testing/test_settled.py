"""Tests of `MemoryBuses.settled`, which counts and does not wait for a time."""

import asyncio
import math
import time
from typing import Any

import pytest

from bus import Bus, Context, Event, RetryPolicy, Router, contract
from bus.errors import ConfigurationError
from bus.testing import MemoryBuses, Unsettled, VirtualLoop
from tests.unit.testing.archive import Find, Place, Store, Stored, archive


@contract("shop.echo", version=1)
class Echo(Event):
    left: int


def echoes(seen: list[int]) -> Router:
    """Return a router that publishes an event in the handler of the event before."""
    router = Router("shop")

    @router.event(Echo, retry=RetryPolicy(attempts=2, delays=(30,)))
    async def echo(event: Echo, context: Context) -> None:
        await asyncio.sleep(0)
        seen.append(event.left)
        if event.left:
            await context.bus.publish(Echo(left=event.left - 1))

    return router


@pytest.fixture
async def shop(buses: MemoryBuses) -> Bus:
    return await buses.bus("shop")


async def test_buses_without_work_are_settled_at_once(buses: MemoryBuses, shop: Bus) -> None:
    await buses.settled(timeout=0)


@pytest.mark.parametrize("timeout", [math.inf, math.nan, -1, "5", None, True, 1e10])
async def test_settled_refuses_a_timeout_that_is_not_a_number_of_seconds(
    buses: MemoryBuses, shop: Bus, timeout: Any
) -> None:
    with pytest.raises(ConfigurationError, match=r"settled: timeout must be a number of seconds"):
        await buses.settled(timeout=timeout)


async def test_settled_waits_for_the_events_that_handlers_publish(
    buses: MemoryBuses, shop: Bus
) -> None:
    seen: list[int] = []
    await buses.serve(shop, echoes(seen))
    await shop.publish(Echo(left=20))
    await buses.settled()
    assert seen == [*range(20, -1, -1)]


async def test_settled_waits_for_a_call_whose_task_has_not_started_yet(
    buses: MemoryBuses, shop: Bus
) -> None:
    seen: list[int] = []
    await buses.serve(shop, echoes(seen))
    publishing = asyncio.create_task(shop.publish(Echo(left=0)))
    await buses.settled()
    assert publishing.done()
    assert seen == [0]


async def test_settled_waits_for_a_request_that_is_acked_before_its_handler_runs(
    buses: MemoryBuses,
) -> None:
    desk, reader = await buses.bus("archive"), await buses.bus("reader")
    router, asked, answer = Router("archive"), asyncio.Event(), asyncio.Event()

    @router.request(Find)
    async def find(request: Find) -> Place:
        asked.set()
        await answer.wait()
        return Place(shelf="B1")

    await buses.serve(desk, router)
    asking = asyncio.create_task(reader.request(Find(title="Emma"), timeout=60))
    await asked.wait()
    settling = asyncio.create_task(buses.settled())
    asyncio.get_running_loop().call_later(0.02, answer.set)
    await settling
    assert asking.result() == Place(shelf="B1")


async def test_settled_waits_for_the_result_of_a_job_whose_submitter_was_disconnected(
    buses: MemoryBuses, skip_waits: None
) -> None:
    desk, reader = await buses.bus("archive"), await buses.bus("reader")
    router = Router("archive")

    @router.job(Store)
    async def store(job: Store) -> Place:
        buses.broker.drop_all()
        return Place(shelf="B1")

    await buses.serve(desk, router)
    job, began = await reader.submit(Store(title="Emma")), time.monotonic()
    await buses.settled(timeout=60)
    assert time.monotonic() - began < 30  # woken by the end of the work, not by the timeout
    assert await job.result(timeout=0.1) == Place(shelf="B1")


async def test_a_message_in_a_retry_tier_is_settled_unless_the_test_waits_for_retries(
    buses: MemoryBuses, skip_waits: None
) -> None:
    await buses.serve(await buses.bus("archive"), archive())
    await (await buses.bus("reader")).submit(Store(title="torn"))
    await buses.settled()
    assert buses.broker.depth("archive.retry.5s") == 1
    buses.dead(Store).none()
    await buses.settled(retries=True)
    assert buses.broker.depth("archive.retry.5s") == 0
    buses.dead(Store).one(title="torn")


async def test_settled_lets_the_virtual_clock_of_a_handler_go_on(
    buses: MemoryBuses, skip_waits: None
) -> None:
    router, desk = Router("archive"), await buses.bus("archive")

    @router.job(Store, timeout=120)
    async def store(job: Store) -> Place:
        await asyncio.sleep(60)
        return Place(shelf="B1")

    await buses.serve(desk, router)
    await desk.submit(Store(title="Emma"))
    await buses.settled()
    assert buses.broker.unacked("archive.jobs.store.v1") == 0


async def stuck(buses: MemoryBuses) -> asyncio.Event:
    """Submit a job whose handler waits for the returned event."""
    router, desk, end = Router("archive"), await buses.bus("archive"), asyncio.Event()

    @router.job(Store)
    async def store(job: Store) -> Place:
        await end.wait()
        return Place(shelf="")

    await buses.serve(desk, router)
    await desk.submit(Store(title="Emma"))
    return end


async def test_the_timeout_of_settled_is_real_time_on_a_virtual_loop(
    buses: MemoryBuses, skip_waits: None
) -> None:
    end, loop = await stuck(buses), asyncio.get_running_loop()
    began, virtual = time.monotonic(), loop.time()
    with pytest.raises(Unsettled):
        await buses.settled(timeout=0.05)
    assert 0.05 <= time.monotonic() - began < 5
    assert loop.time() - virtual > 5
    end.set()


async def test_a_handler_that_does_not_end_is_named(buses: MemoryBuses) -> None:
    end = await stuck(buses)
    with pytest.raises(Unsettled) as raised:
        await buses.settled(timeout=0.05)
    end.set()
    text = str(raised.value)
    assert text.startswith("the buses are not settled after 0.05 s.\n- archive.jobs.store.v1: ")
    assert "1 message unacked, handler " in text
    assert "store runs for 0." in text


async def test_a_message_without_a_consumer_is_an_error_at_once(buses: MemoryBuses) -> None:
    desk = await buses.bus("archive")
    async with desk.serving(archive()):
        pass
    await desk.submit(Store(title="Emma"))
    began = time.monotonic()
    with pytest.raises(Unsettled) as raised:
        await buses.settled(timeout=60)
    assert time.monotonic() - began < 10
    assert str(raised.value) == (
        "the buses cannot settle.\n"
        "- archive.jobs.store.v1: 1 message and no consumer\n"
        "Serve the service of each queue in the test before `settled`."
    )


async def test_a_consumer_that_the_broker_cancelled_is_waited_for(
    buses: MemoryBuses, skip_waits: None
) -> None:
    desk = await buses.bus("archive")
    await buses.serve(desk, archive())
    buses.broker.cancel_consumers("archive.jobs.store.v1")
    await desk.submit(Store(title="Emma"))
    await buses.settled()
    buses.published(Stored).one(title="Emma")


async def test_a_request_that_waits_for_its_reply_is_named(buses: MemoryBuses) -> None:
    desk, reader = await buses.bus("archive"), await buses.bus("reader")
    router, never = Router("archive"), asyncio.Event()

    @router.request(Find)
    async def find(request: Find) -> Place:
        await never.wait()
        return Place(shelf="")

    await buses.serve(desk, router)
    asking = asyncio.create_task(reader.request(Find(title="Emma"), timeout=60))
    with pytest.raises(Unsettled, match=r"reader: the request archive.find.v1 has no reply for 0."):
        await buses.settled(timeout=0.05)
    never.set()
    await asking


async def test_settled_needs_no_virtual_loop(buses: MemoryBuses) -> None:
    assert not isinstance(asyncio.get_running_loop(), VirtualLoop)
    await buses.settled()
