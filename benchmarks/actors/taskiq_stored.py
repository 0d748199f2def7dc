"""Taskiq: jobs on its aio-pika broker, and results in PostgreSQL by taskiq-postgres."""

import asyncio
import os
import sys
from collections.abc import Mapping
from typing import Any

from taskiq.api import run_receiver_task
from taskiq_aio_pika import AioPikaBroker, Queue, QueueType
from taskiq_pg.asyncpg import AsyncpgResultBackend

from benchmarks.actors.stage import URL, obey
from benchmarks.actors.submitting import done, obey_submitter
from benchmarks.payload import Payload

CONCURRENCY = int(os.environ.get("BENCH_CONCURRENCY", "100"))
"""Tasks at a time, and the prefetch; 100 is Taskiq's default."""
broker = AioPikaBroker(
    URL, qos=CONCURRENCY, task_queues=[Queue(name="taskiq.stored", type=QueueType.QUORUM)]
).with_result_backend(AsyncpgResultBackend(dsn=os.environ["BENCH_POSTGRES"]))


@broker.task(task_name="work")
async def work(job: Payload) -> dict[str, Any]:
    """Handle a job."""
    return done(job)


async def serve() -> None:
    """Run a worker."""
    worker = asyncio.create_task(
        run_receiver_task(broker, run_startup=True, max_async_tasks=CONCURRENCY)
    )
    await asyncio.sleep(1)  # until its queue and table exist
    await obey()
    worker.cancel()


async def submit() -> None:
    """Submit jobs."""
    await broker.startup()

    async def one(job: dict[str, object]) -> str:
        task = await work.kiq(Payload.model_validate(job))
        return str(task.task_id)

    async def read(identity: str) -> Mapping[str, Any]:
        stored = await broker.result_backend.get_result(identity)
        result: dict[str, Any] = stored.return_value
        return result

    await obey_submitter(one, read)


if __name__ == "__main__":
    asyncio.run({"work": serve, "submit": submit}[sys.argv[1]]())
