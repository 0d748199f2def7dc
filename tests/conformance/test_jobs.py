"""Tests of jobs, which one service does once, later, and which survive failures."""

import asyncio
from itertools import pairwise

import pytest

from bus.contracts.contract import contract_of
from bus.contracts.retry_policy import RetryPolicy
from bus.errors import Aborted, BusError, FailedPrecondition, NotServed
from bus.messaging.context import Context
from bus.messaging.topology.addresses import address_of
from bus.messaging.topology.names import dead_letter_queue, job_queue
from bus.runtime.router import Router
from bus.transports.wire_format import AmqpMessage
from tests.conformance.contracts import Ask, Word, Write, WriteNewly
from tests.conformance.world import World

QUEUE = job_queue(contract_of(Write))


DEAD = dead_letter_queue(QUEUE)


async def test_a_job_reports_all_of_its_progress_before_its_result(world: World) -> None:
    desk, client = await world.bus("desk"), await world.bus("client")
    router, steps = Router("desk"), [number / 20 for number in range(20)]

    @router.job(Write)
    async def write(job: Write, context: Context) -> Word:
        for step in steps:
            await context.progress(step, "writing")
        return Word(text=job.text)

    await world.serve(desk, router)
    handle = await client.submit(Write(text="a letter"), timeout=30)
    async with asyncio.timeout(30):
        updates = [(update.progress, update.note) async for update in handle.updates()]
    assert updates == [(step, "writing") for step in steps]
    assert await handle.result(timeout=30) == Word(text="a letter")


async def test_a_job_that_nobody_takes_is_not_served(world: World) -> None:
    client = await world.bus("client")
    with pytest.raises(NotServed, match=r"desk\.write\.v1"):
        await client.submit(Write(), timeout=30)


async def test_a_job_of_a_version_that_nobody_serves_is_not_served_and_reaches_no_older_worker(
    world: World,
) -> None:
    desk, client = await world.bus("desk"), await world.bus("client")
    done: list[str] = []
    await world.serve(desk, writer(done))
    with pytest.raises(NotServed, match=r"desk\.write\.v2"):
        await client.submit(WriteNewly(text="new"), timeout=30)
    await (await client.submit(Write(text="old"), timeout=30)).result(timeout=30)
    assert done == ["old"]


def writer(done: list[str]) -> Router:
    router = Router("desk")

    @router.job(Write)
    async def write(job: Write) -> Word:
        done.append(job.text)
        return Word(text=job.text)

    return router


async def test_a_job_waits_for_a_worker_that_is_away(world: World) -> None:
    desk, client = await world.bus("desk"), await world.bus("client")
    done: list[str] = []
    async with desk.serving(writer(done)):
        pass
    handle = await client.submit(Write(text="later"), timeout=30)
    assert await world.depth(QUEUE) == 1
    await world.serve(desk, writer(done))
    assert await handle.result(timeout=30) == Word(text="later")


async def test_a_job_that_fails_for_good_is_dead_lettered_with_its_code_and_its_handle_raises(
    world: World,
) -> None:
    desk, client = await world.bus("desk"), await world.bus("client")
    attempts, router = [], Router("desk")

    @router.job(Write)
    async def write(job: Write, context: Context) -> Word:
        attempts.append(context.envelope.attempt)
        raise FailedPrecondition("the pen is empty")

    await world.serve(desk, router)
    handle = await client.submit(Write(text="a letter"), timeout=30)
    with pytest.raises(FailedPrecondition, match="the pen is empty"):
        await handle.result(timeout=30)
    (dead,) = await world.holds(DEAD, 1)
    assert attempts == [1]
    assert dead.message_id == handle.id
    assert dead.body == b'{"text":"a letter"}'
    assert dead.headers["dead-code"] == "failed_precondition"
    assert dead.headers["dead-queue"] == QUEUE
    assert "the pen is empty" in dead.headers["dead-reason"]


async def test_a_job_that_fails_comes_back_through_the_tiers_until_it_succeeds(
    world: World,
) -> None:
    desk, client = await world.bus("desk"), await world.bus("client")
    loop = asyncio.get_running_loop()
    attempts: list[int] = []
    times: list[float] = []
    router = Router("desk")

    @router.job(Write, retry=RetryPolicy(attempts=4, first_delay=1, factor=1))
    async def write(job: Write, context: Context) -> Word:
        attempts.append(context.envelope.attempt)
        times.append(loop.time())
        if context.envelope.attempt < 3:
            raise Aborted("again")
        return Word(text="at last")

    await world.serve(desk, router)
    handle = await client.submit(Write(), timeout=30)
    assert await handle.result(timeout=30) == Word(text="at last")
    assert attempts == [1, 2, 3]
    assert all(later - earlier >= 1 for earlier, later in pairwise(times))
    assert await world.depth(DEAD) == 0


async def test_a_job_that_never_succeeds_is_dead_lettered_after_its_last_attempt(
    virtual_world: World,
) -> None:
    desk, client = await virtual_world.bus("desk"), await virtual_world.bus("client")
    times: list[float] = []
    router = Router("desk")

    @router.job(Write, retry=RetryPolicy(attempts=5, first_delay=1, factor=5))
    async def write(job: Write) -> Word:
        times.append(asyncio.get_running_loop().time())
        raise ValueError("reader Smith")

    await virtual_world.serve(desk, router)
    handle = await client.submit(Write(), timeout=30)
    with pytest.raises(BusError) as caught:
        await handle.result(timeout=3600)
    assert "Smith" not in str(caught.value)
    assert [round(later - earlier) for earlier, later in pairwise(times)] == [1, 5, 30, 600]
    (dead,) = await virtual_world.holds(DEAD, 1)
    assert (dead.headers["dead-attempts"], dead.headers["dead-code"]) == (5, "internal")
    assert not [value for value in dead.headers.values() if "Smith" in str(value)]


POISON = {
    "no JSON": AmqpMessage(body=b"{", message_id="1", type="desk.write.v1", app_id="client"),
    "a broken contract": AmqpMessage(
        body=b'{"text": 5}', message_id="1", type="desk.write.v1", app_id="client"
    ),
    "no UTF-8": AmqpMessage(
        body=b'{"text": "\xff"}', message_id="1", type="desk.write.v1", app_id="client"
    ),
    "nested beyond reason": AmqpMessage(
        body=b"[" * 100_000, message_id="1", type="desk.write.v1", app_id="client"
    ),
    "another type": AmqpMessage(body=b"{}", message_id="1", type="desk.told.v1", app_id="client"),
    "no type": AmqpMessage(body=b"{}", message_id="1", app_id="client"),
    "a bad header": AmqpMessage(
        body=b"{}",
        message_id="1",
        type="desk.write.v1",
        app_id="client",
        headers={"attempt": "many"},
    ),
}


@pytest.mark.parametrize("poison", POISON)
async def test_a_poisoned_job_is_dead_lettered_at_once_with_the_reason_and_the_worker_lives(
    world: World, poison: str
) -> None:
    desk, client = await world.bus("desk"), await world.bus("client")
    done: list[str] = []
    await world.serve(desk, writer(done))
    await world.put(POISON[poison], address_of("job", "desk.write.v1"))
    (dead,) = await world.holds(DEAD, 1)
    assert dead.body == POISON[poison].body
    assert dead.headers["dead-reason"]
    assert dead.headers["dead-code"] in {"invalid_argument", "unimplemented"}
    assert dead.headers["dead-attempts"] == 1
    await (await client.submit(Write(text="next"), timeout=30)).result(timeout=30)
    assert done == ["next"]


async def test_jobs_in_hand_are_bounded_by_the_handlers_concurrency(world: World) -> None:
    desk, client = await world.bus("desk"), await world.bus("client")
    running, most, router = 0, 0, Router("desk")

    @router.job(Write, concurrency=2)
    async def write(job: Write) -> Word:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.05)
        running -= 1
        return Word(text="")

    await world.serve(desk, router)
    handles = [await client.submit(Write(), timeout=30) for _ in range(8)]
    await asyncio.gather(*(handle.result(timeout=30) for handle in handles))
    assert most == 2


async def test_a_request_made_by_a_job_is_answered_while_jobs_fill_the_worker(world: World) -> None:
    desk, client = await world.bus("desk"), await world.bus("client")
    router = Router("desk")

    @router.request(Ask)
    async def ask(request: Ask) -> Word:
        return Word(text=request.text)

    @router.job(Write, concurrency=4)
    async def write(job: Write, context: Context) -> Word:
        return await context.bus.request(Ask(text=job.text), timeout=30)

    await world.serve(desk, router)
    handles = [await client.submit(Write(text=str(number)), timeout=30) for number in range(8)]
    results = await asyncio.gather(*(handle.result(timeout=30) for handle in handles))
    assert [result.text for result in results] == [str(number) for number in range(8)]
