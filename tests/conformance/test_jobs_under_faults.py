"""Tests of jobs whose worker stops, dies or loses its connection."""

import asyncio

import pytest

from bus.contracts.retry_policy import RetryPolicy
from bus.errors import Unavailable
from bus.messaging.context import Context
from bus.messaging.envelope import Envelope
from bus.messaging.ports.transport import Delivery, Nacked, PublishOutcome
from bus.messaging.topology.addresses import Address
from bus.messaging.topology.names import retry_tier
from bus.runtime.bus import Bus
from bus.runtime.router import Router
from bus.transports.memory import MemoryTransport
from tests.conformance.contracts import Word, Write
from tests.conformance.memory_world import MemoryWorld
from tests.conformance.test_jobs import QUEUE, writer
from tests.conformance.world import World, stays, until
from tests.polling import BRIEF


async def test_a_job_still_ends_once_when_the_connection_drops_in_the_middle(world: World) -> None:
    desk, client = await world.bus("desk"), await world.bus("client")
    runs, going_on, router = [], asyncio.Event(), Router("desk")

    @router.job(Write, concurrency=2)  # with 1, the redelivery would have to wait
    async def write(job: Write) -> Word:
        runs.append(job.text)
        await going_on.wait()
        return Word(text=job.text)

    await world.serve(desk, router)
    handle = await client.submit(Write(text="long"), timeout=30)
    await until(lambda: runs, "the job to run")
    await world.drop_connections(desk)
    await until(lambda: not desk.ready, "the loss to be noticed", poll=BRIEF)
    await until(lambda: desk.ready, "the worker")
    await stays(lambda: runs == ["long"], "the redelivery joins what runs")
    going_on.set()
    assert await handle.result(timeout=30) == Word(text="long")
    await world.holds(QUEUE, 0)
    assert runs == ["long"]


async def test_a_job_is_done_by_another_worker_when_its_own_dies(world: World) -> None:
    dying, heir, client = (
        await world.bus("desk", stop_grace=0.1),
        await world.bus("desk"),
        await world.bus("client"),
    )
    started, done = [], list[str]()
    router = Router("desk")

    @router.job(Write)
    async def write(job: Write) -> Word:
        started.append(job.text)
        await asyncio.sleep(30)
        return Word(text="")

    await world.serve(dying, router)
    handle = await client.submit(Write(text="inherited"), timeout=30)
    await until(lambda: started, "the job to run")
    await world.serve(heir, writer(done))
    await dying._transport.close()
    assert await handle.result(timeout=30) == Word(text="inherited")
    assert done == ["inherited"]


async def test_a_result_reaches_a_submitter_that_lost_its_connection_meanwhile(
    world: World,
) -> None:
    desk, client = await world.bus("desk"), await world.bus("client")
    started, going_on, router = [], asyncio.Event(), Router("desk")

    @router.job(Write)
    async def write(job: Write) -> Word:
        started.append(job.text)
        await going_on.wait()
        return Word(text="here")

    await world.serve(desk, router)
    handle = await client.submit(Write(), timeout=30)
    await until(lambda: started, "the job to run")
    await world.drop_connections(client)
    await until(lambda: not client.ready, "the loss to be noticed", poll=BRIEF)
    await until(lambda: client.ready, "the submitter")
    going_on.set()
    assert await handle.result(timeout=20) == Word(text="here")


async def test_a_stop_finishes_what_has_started_and_hands_back_what_has_not(world: World) -> None:
    desk, client = await world.bus("desk"), await world.bus("client")
    started, going_on, router = [], asyncio.Event(), Router("desk")

    @router.job(Write, concurrency=2)
    async def write(job: Write) -> Word:
        started.append(job.text)
        await going_on.wait()
        return Word(text=job.text)

    serving = asyncio.create_task(serve_until_told(desk, router, told := asyncio.Event()))
    await until(lambda: desk.ready and len(desk._consumers) > 1, "the worker")
    handles = [await client.submit(Write(text=str(number)), timeout=30) for number in range(5)]
    await until(lambda: len(started) == 2, "two jobs to run")
    [worker] = desk._server.consumers
    told.set()
    await until(lambda: worker.state.in_flight.is_stopping, "the stop")
    going_on.set()
    await serving
    assert [(await handle.result(timeout=30)).text for handle in handles[:2]] == ["0", "1"]
    await until(lambda: holds(world, 3), "the messages that were handed back")
    done: list[str] = []
    await world.serve(desk, writer(done))
    await asyncio.gather(*(handle.result(timeout=30) for handle in handles[2:]))
    assert sorted(done) == ["2", "3", "4"]


async def holds(world: World, count: int) -> bool:
    return await world.depth(QUEUE) == count


async def serve_until_told(bus: Bus, router: Router, told: asyncio.Event) -> None:
    async with bus.serving(router):
        await told.wait()


async def test_what_is_not_done_within_the_grace_goes_back_to_the_broker(world: World) -> None:
    desk, heir, client = (
        await world.bus("desk", stop_grace=0.3),
        await world.bus("desk"),
        await world.bus("client"),
    )
    started, router = [], Router("desk")

    @router.job(Write)
    async def write(job: Write) -> Word:
        started.append(job.text)
        await asyncio.sleep(60)
        return Word(text="")

    async with desk.serving(router):
        handle = await client.submit(Write(text="too long"), timeout=30)
        await until(lambda: started, "the job to run")
    await desk._transport.close()
    done: list[str] = []
    await world.serve(heir, writer(done))
    assert await handle.result(timeout=30) == Word(text="too long")


async def test_a_retry_whose_copy_is_refused_is_not_lost(world: World) -> None:
    desk, client = await world.bus("desk"), await world.bus("client")
    attempts: list[int] = []
    router = Router("desk")

    @router.job(Write, retry=RetryPolicy(attempts=3, first_delay=1, factor=1))
    async def write(job: Write, context: Context) -> Word:
        attempts.append(context.envelope.attempt)
        if context.envelope.attempt == 1:
            raise Unavailable("not now")
        return Word(text="kept")

    await world.serve(desk, router)
    await world.delete_queue("desk.retry.1s")
    handle = await client.submit(Write(), timeout=30)
    assert await handle.result(timeout=20) == Word(text="kept")
    assert attempts[-1] == 2


async def test_a_retry_that_no_tier_accepts_for_a_while_is_not_counted_as_a_lost_delivery(
    virtual_world: MemoryWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Refuse the retry copies of three workers, like a tier whose quorum queue has no leader.

    Each requeue of the message would count as a lost delivery.
    """
    send, refused = MemoryTransport.send, True

    async def refusing(
        self: MemoryTransport,
        envelope: Envelope,
        address: Address,
        *,
        timeout: float,
        via: Delivery | None = None,
    ) -> PublishOutcome:
        if refused and address.exchange.startswith(retry_tier("desk", "")):
            return Nacked(reason="basic.nack")
        return await send(self, envelope, address, timeout=timeout, via=via)

    monkeypatch.setattr(MemoryTransport, "send", refusing)
    attempts, client = list[int](), await virtual_world.bus("client")
    router = Router("desk")

    @router.job(Write, retry=RetryPolicy(attempts=3))
    async def write(job: Write, context: Context) -> Word:
        attempts.append(context.envelope.attempt)
        if context.envelope.attempt < 3:
            raise ValueError
        return Word(text=job.text)

    for _ in range(3):
        await virtual_world.serve(await virtual_world.bus("desk"), router)
    handle = await client.submit(Write(text="late"))
    await asyncio.sleep(50)
    refused = False
    assert await handle.result(timeout=30) == Word(text="late")
    assert attempts == [1, 2, 3]
