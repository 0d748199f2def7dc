"""Celery: jobs on RabbitMQ, and results in PostgreSQL by its database backend."""

import asyncio
import os
import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from celery import Celery
from celery.signals import worker_ready

from benchmarks.actors.stage import URL, say
from benchmarks.actors.submitting import done, obey_submitter
from benchmarks.payload import Payload

CONCURRENCY = os.environ.get("BENCH_CONCURRENCY", "10")
"""Processes of the prefork pool. Only after a fork does its database backend keep connections."""
THREADS = 10
"""Threads that submit, as many as Celery's pool has connections to the broker."""
app = Celery(
    "celery_stored",
    broker=URL,
    backend=os.environ["BENCH_POSTGRES"].replace("postgresql://", "db+postgresql+psycopg2://"),
)
app.conf.update(
    task_default_queue="celery.stored",
    task_default_queue_type="quorum",
    task_acks_late=True,
    task_reject_on_worker_lost=True,
    broker_transport_options={"confirm_publish": True},
    worker_send_task_events=False,
    worker_hijack_root_logger=False,
    worker_redirect_stdouts=False,
    broker_connection_retry_on_startup=True,
)


@app.task(pydantic=True, name="work")
def work(job: Payload) -> dict[str, Any]:
    """Handle a job; Celery validates the argument."""
    return done(job)


async def submit() -> None:
    """Submit jobs; the threads are those of an event loop."""
    loop, threads = asyncio.get_running_loop(), ThreadPoolExecutor(THREADS)

    async def one(job: dict[str, object]) -> str:
        fields = Payload.model_validate(job).model_dump()
        result = await loop.run_in_executor(threads, work.delay, fields)
        return str(result.id)

    async def read(identity: str) -> Mapping[str, Any]:
        found = app.AsyncResult(identity)
        result: dict[str, Any] = await loop.run_in_executor(threads, found.get)
        return result

    await obey_submitter(one, read)


def serve() -> None:
    """Run a worker without the features that only several workers need."""
    _ = app.backend  # before the fork: only then do its processes keep their connections
    worker_ready.connect(lambda **_: say({"ready": True}), weak=False)
    app.worker_main(
        [
            *("--quiet", "worker", "--loglevel", "WARNING", "--pool", "prefork"),
            *("--concurrency", CONCURRENCY),
            *("--without-gossip", "--without-mingle", "--without-heartbeat"),
        ]
    )


if __name__ == "__main__":
    if sys.argv[1] == "work":
        serve()
    else:
        asyncio.run(submit())
