"""Tests in which the broker is killed while a job runs."""

import asyncio

from pydantic import SecretStr

from bus import Bus, Context, Job, Message, Router, Settings, contract
from bus.operations.brokers.private_node import PrivateNode
from tests.broker import kill_with_queues_on_disk
from tests.polling import until


class Sum(Message):
    total: int


@contract("faults.add-up", version=1)
class AddUp(Job[Sum]):
    count: int


class Work:
    """A service with a job that waits for an event of the test."""

    def __init__(self) -> None:
        self.router = Router("faults")
        self.begun, self.go_on, self.runs = asyncio.Event(), asyncio.Event(), list[str]()
        self.router.job(AddUp)(self.add_up)

    async def add_up(self, job: AddUp, context: Context) -> Sum:
        self.runs.append(context.envelope.id)
        self.begun.set()
        await self.go_on.wait()
        return Sum(total=sum(range(job.count)))


async def test_a_job_ends_although_its_broker_was_killed_meanwhile_and_runs_once(
    private_node: PrivateNode,
) -> None:
    work = Work()
    settings = Settings(url=SecretStr(private_node.url))
    async with (
        Bus("faults", settings=settings) as worker,
        worker.serving(work.router),
        Bus("caller", settings=settings) as caller,
    ):
        job = await caller.submit(AddUp(count=5))
        await work.begun.wait()
        await kill_with_queues_on_disk(private_node)
        await until(lambda: not worker.ready and not caller.ready, "both to notice")
        await private_node.start()
        await until(lambda: worker.ready and caller.ready, "both to be back", seconds=100)
        work.go_on.set()
        result = await job.result(timeout=100)

    assert result.total == 10
    assert work.runs == [job.id]


async def test_a_job_that_ended_while_the_broker_was_away_is_reported_and_not_run_again(
    private_node: PrivateNode,
) -> None:
    work = Work()
    settings = Settings(url=SecretStr(private_node.url))
    async with (
        Bus("faults", settings=settings) as worker,
        worker.serving(work.router),
        Bus("caller", settings=settings) as caller,
    ):
        job = await caller.submit(AddUp(count=4))
        await work.begun.wait()
        await kill_with_queues_on_disk(private_node)
        await until(lambda: not worker.ready and not caller.ready, "both to notice")
        work.go_on.set()
        await private_node.start()
        result = await job.result(timeout=100)

    assert result.total == 6
    assert work.runs == [job.id]
