"""Taskiq on its aio-pika broker: jobs without a result backend, and a worker in this process."""

import asyncio
import sys

from taskiq.api import run_receiver_task
from taskiq_aio_pika import AioPikaBroker, Queue, QueueType

from benchmarks.actors.stage import URL, Gathering, obey, published
from benchmarks.payload import Payload, fields, numbers

PREFETCH = 200


def prepared() -> tuple[AioPikaBroker, Gathering]:
    """Return a broker with one quorum queue and one task, which takes the model."""
    broker = AioPikaBroker(
        URL, qos=PREFETCH, task_queues=[Queue(name="taskiq.flow", type=QueueType.QUORUM)]
    )
    gathering = Gathering()

    @broker.task(task_name="work")
    async def work(job: Payload) -> None:
        gathering.saw(job.number)

    return broker, gathering


async def publish() -> None:
    """Submit jobs, each awaited until the broker's confirm."""
    broker, _ = prepared()
    task = broker.find_task("work")
    if task is None:
        raise LookupError("work")
    await broker.startup()
    sequence = numbers()

    async def one(number: int) -> None:
        await task.kiq(Payload.model_validate(fields(number)))

    await obey(submit=lambda order: published(one, sequence, order))


async def work() -> None:
    """Handle jobs continuously."""
    broker, gathering = prepared()
    worker = asyncio.create_task(
        run_receiver_task(broker, run_startup=True, max_async_tasks=PREFETCH, max_prefetch=PREFETCH)
    )
    await gathering.obey()
    worker.cancel()


if __name__ == "__main__":
    asyncio.run({"publish": publish, "work": work}[sys.argv[1]]())
