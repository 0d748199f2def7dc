"""DBOS: workflows on a queue in PostgreSQL, which stores their results."""

import asyncio
import os
import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from dbos import DBOS, DBOSClient, EnqueueOptions

from benchmarks.actors.stage import obey
from benchmarks.actors.submitting import SUBMITTING, done, obey_submitter
from benchmarks.payload import Payload

QUEUE = "bench"
POLLING = float(os.environ.get("BENCH_POLLING", "0.05"))
"""Seconds between two looks at the queue. The default is a second; DBOS has no notification."""
CONCURRENCY = int(os.environ.get("BENCH_CONCURRENCY", "0"))
"""Workflows at a time. By default a queue has no limit, and a look takes all that wait."""


@DBOS.workflow(name="work")
async def work(job: dict[str, Any]) -> dict[str, Any]:
    """Handle a job."""
    return done(Payload.model_validate(job))


async def serve() -> None:
    """Create the tables, and run a worker."""
    DBOS(
        config={
            "name": "bench",
            "system_database_url": os.environ["BENCH_POSTGRES"],
            "application_version": "1",
            "log_level": "WARNING",
        }
    )
    DBOS.launch()
    await DBOS.register_queue_async(
        QUEUE, polling_interval_sec=POLLING, worker_concurrency=CONCURRENCY or None
    )
    await asyncio.sleep(1.5)  # the manager of the queues looks for new ones each second
    await obey()


async def submit() -> None:
    """Submit jobs."""
    client = DBOSClient(
        system_database_url=os.environ["BENCH_POSTGRES"],
        system_database_pool_size=20,
        application_name="bench",
    )
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(SUBMITTING))

    async def one(job: dict[str, object]) -> str:
        options: EnqueueOptions = {"queue_name": QUEUE, "workflow_name": "work"}
        handle: Any = await client.enqueue_async(options, job)
        identity: str = handle.get_workflow_id()
        return identity

    async def read(identity: str) -> Mapping[str, Any]:
        handle: Any = await client.retrieve_workflow_async(identity)
        result: dict[str, Any] = await handle.get_result()
        return result

    await obey_submitter(one, read)


if __name__ == "__main__":
    asyncio.run({"work": serve, "submit": submit}[sys.argv[1]]())
