"""The way of a durable job: recorded, claimed, run and ended, with its updates to the submitter."""

import asyncio

import pytest

from bus import BusError, Context, Job, Message, NotFound, RetryPolicy, Router, contract
from tests.unit.runtime.jobs.durable import Durable, durable


class Pressed(Message):
    """Result of a job."""

    pages: int


@contract("printshop.print", version=1)
class Print(Job[Pressed]):
    """A job of the service with a store."""

    pages: int = 1


@durable
async def test_a_job_is_recorded_run_and_ended_and_its_submitter_gets_the_result(
    world: Durable,
) -> None:
    router = Router("printshop")

    @router.job(Print)
    async def print_pages(job: Print) -> Pressed:
        return Pressed(pages=job.pages)

    await world.serve(router)
    desk = await world.client()
    handle = await desk.submit(Print(pages=3))
    assert await handle.result(timeout=5) == Pressed(pages=3)
    record = await world.row(handle.id, "succeeded")
    assert (record.attempt, record.losses, record.token) == (1, 0, 1)
    assert record.result is not None
    assert record.result.body == b'{"pages":3}'
    assert world.broker.depth("printshop.jobs.print.v1") == 0


@durable
async def test_no_message_is_unacked_while_its_job_runs(world: Durable) -> None:
    router, running, end = Router("printshop"), asyncio.Event(), asyncio.Event()

    @router.job(Print)
    async def print_pages(job: Print) -> Pressed:
        running.set()
        await end.wait()
        return Pressed(pages=job.pages)

    await world.serve(router)
    desk = await world.client()
    handle = await desk.submit(Print())
    await running.wait()
    await asyncio.sleep(0.1)
    assert world.broker.depth("printshop.jobs.print.v1") == 0
    assert not world.broker.unacked("printshop.jobs.print.v1")
    assert await world.state(handle.id) == "running"
    end.set()
    await handle.result(timeout=5)


@durable
async def test_a_failed_job_is_a_failed_row_and_has_no_dead_letter(world: Durable) -> None:
    router = Router("printshop")

    @router.job(Print)
    async def print_pages(job: Print) -> Pressed:
        raise NotFound("no paper")

    await world.serve(router)
    desk = await world.client()
    handle = await desk.submit(Print())
    with pytest.raises(NotFound, match="no paper"):
        await handle.result(timeout=5)
    record = await world.row(handle.id, "failed")
    assert record.failure is not None
    assert record.failure.code == "not_found"
    assert record.failure.reason == "NotFound: no paper"
    assert "test_way_of_a_job.py" in (record.failure.location or "")
    assert record.result is not None
    assert record.result.error == "not_found"
    assert world.broker.depth("printshop.jobs.print.v1.dead") == 0


@durable
async def test_an_attempt_is_repeated_after_exactly_the_wait_of_its_policy(
    world: Durable,
) -> None:
    router, starts = Router("printshop"), []

    @router.job(Print, retry=RetryPolicy(delays=(3.25, 7.5)))
    async def print_pages(job: Print, context: Context) -> Pressed:
        starts.append((asyncio.get_running_loop().time(), context.envelope.attempt))
        if len(starts) < 3:
            raise ValueError
        return Pressed(pages=len(starts))

    await world.serve(router)
    desk = await world.client()
    handle = await desk.submit(Print())
    assert (await handle.result(timeout=60)).pages == 3
    (first, _), (second, _), (third, _) = starts
    assert second - first == pytest.approx(3.25, abs=0.05)
    assert third - second == pytest.approx(7.5, abs=0.05)
    assert [attempt for _, attempt in starts] == [1, 2, 3]
    assert (await world.row(handle.id, "succeeded")).attempt == 3


@durable
async def test_a_job_fails_after_the_last_attempt_of_its_policy(world: Durable) -> None:
    router, attempts = Router("printshop"), []

    @router.job(Print, retry=RetryPolicy(attempts=2))
    async def print_pages(job: Print, context: Context) -> Pressed:
        attempts.append(context.envelope.attempt)
        raise ValueError

    await world.serve(router)
    desk = await world.client()
    handle = await desk.submit(Print())
    with pytest.raises(BusError):
        await handle.result(timeout=60)
    assert attempts == [1, 2]
    assert (await world.row(handle.id, "failed")).attempt == 2
