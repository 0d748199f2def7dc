"""The broker is killed while something depends on it."""

import asyncio

from pydantic import SecretStr

from bus import Bus, Context, Job, Message, Router, Settings, contract
from bus.brokers.private_node import PrivateNode
from tests.broker import kill_with_queues_on_disk
from tests.polling import until


class Sum(Message):
    total: int


@contract("faults.add-up", version=1)
class AddUp(Job[Sum]):
    count: int


async def test_a_job_ends_although_its_broker_was_killed_meanwhile_and_runs_once(private_node: PrivateNode) -> None:
    router = Router("faults")
    begun, go_on, runs = asyncio.Event(), asyncio.Event(), list[str]()

    @router.job(AddUp)
    async def add_up(job: AddUp, context: Context) -> Sum:
        runs.append(context.envelope.id)
        begun.set()
        await go_on.wait()
        return Sum(total=sum(range(job.count)))

    settings = Settings(url=SecretStr(private_node.url))
    async with Bus("faults", settings=settings) as worker, worker.serving(router), Bus("caller", settings=settings) as caller:
        job = await caller.submit(AddUp(count=5))
        await begun.wait()
        await kill_with_queues_on_disk(private_node)
        await until(lambda: not worker.ready and not caller.ready, "both to notice")
        await private_node.start()
        await until(lambda: worker.ready and caller.ready, "both to be back", seconds=100)
        go_on.set()
        result = await job.result(timeout=100)

    assert result.total == 10
    assert runs == [job.id]


async def test_a_job_that_ended_while_the_broker_was_away_is_reported_and_not_run_again(private_node: PrivateNode) -> None:
    router = Router("faults")
    begun, go_on, runs = asyncio.Event(), asyncio.Event(), list[str]()

    @router.job(AddUp)
    async def add_up(job: AddUp, context: Context) -> Sum:
        runs.append(context.envelope.id)
        begun.set()
        await go_on.wait()
        return Sum(total=sum(range(job.count)))

    settings = Settings(url=SecretStr(private_node.url))
    async with Bus("faults", settings=settings) as worker, worker.serving(router), Bus("caller", settings=settings) as caller:
        job = await caller.submit(AddUp(count=4))
        await begun.wait()
        await kill_with_queues_on_disk(private_node)
        await until(lambda: not worker.ready and not caller.ready, "both to notice")
        go_on.set()
        await private_node.start()
        result = await job.result(timeout=100)

    assert result.total == 6
    assert runs == [job.id]
