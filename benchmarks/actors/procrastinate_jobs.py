"""Procrastinate: jobs in PostgreSQL. It stores no results, so each handler writes its result."""

import asyncio
import json
import os
import sys
from collections.abc import Mapping
from typing import Any

from procrastinate import App, JobContext, PsycopgConnector

from benchmarks.actors.stage import obey
from benchmarks.actors.submitting import done, obey_submitter
from benchmarks.payload import Payload

CONCURRENCY = int(os.environ.get("BENCH_CONCURRENCY", "10"))
TABLE = "CREATE TABLE IF NOT EXISTS results (id bigint PRIMARY KEY, result text NOT NULL)"
app = App(
    connector=PsycopgConnector(conninfo=os.environ["BENCH_POSTGRES"], min_size=4, max_size=20)
)


@app.task(name="work", queue="bench", pass_context=True)
async def work(context: JobContext, **job: Any) -> None:
    """Handle a job: write its result to a table."""
    result = json.dumps(done(Payload.model_validate(job)))
    await app.connector.execute_query_async(
        "INSERT INTO results VALUES (%(id)s, %(result)s)", id=context.job.id, result=result
    )


async def serve() -> None:
    """Create the tables, and run a worker."""
    async with app.open_async():
        await app.schema_manager.apply_schema_async()
        await app.connector.execute_query_async(TABLE)
        worker = asyncio.create_task(
            app.run_worker_async(
                queues=["bench"], concurrency=CONCURRENCY, install_signal_handlers=False
            )
        )
        await obey()
        worker.cancel()


async def submit() -> None:
    """Submit jobs."""
    async with app.open_async():

        async def one(job: dict[str, object]) -> int:
            identity: int = await work.defer_async(**job)
            return identity

        async def read(identity: int) -> Mapping[str, Any]:
            row = await app.connector.execute_query_one_async(
                "SELECT result FROM results WHERE id = %(id)s", id=identity
            )
            result: dict[str, Any] = json.loads(row["result"])
            return result

        await obey_submitter(one, read)


if __name__ == "__main__":
    asyncio.run({"work": serve, "submit": submit}[sys.argv[1]]())
