"""PgQueuer: jobs in PostgreSQL. It stores no results, so each handler writes its result."""

import asyncio
import json
import os
import sys
from collections.abc import Mapping
from typing import Any

import asyncpg
from pgqueuer import PgQueuer, Queries
from pgqueuer.models import Job

from benchmarks.actors.stage import obey
from benchmarks.actors.submitting import done, obey_submitter
from benchmarks.payload import Payload

TABLE = "CREATE TABLE IF NOT EXISTS results (id bigint PRIMARY KEY, result text NOT NULL)"
BATCH = int(os.environ.get("BENCH_BATCH", "10"))
"""Jobs that one statement takes; PgQueuer's default."""


async def serve() -> None:
    """Create the tables, and run a worker."""
    async with asyncpg.create_pool(os.environ["BENCH_POSTGRES"], min_size=4, max_size=20) as pool:
        queries = Queries.from_asyncpg_pool(pool)
        if not await queries.schema_is_installed():
            await queries.install()
        await pool.execute(TABLE)
        worker = PgQueuer.from_asyncpg_pool(pool)

        @worker.entrypoint("work")
        async def work(job: Job) -> None:
            result = json.dumps(done(Payload.model_validate_json(job.payload or b"")))
            await pool.execute("INSERT INTO results VALUES ($1, $2)", job.id, result)

        running = asyncio.create_task(worker.run(batch_size=BATCH))
        await obey()
        running.cancel()


async def submit() -> None:
    """Submit jobs."""
    async with asyncpg.create_pool(os.environ["BENCH_POSTGRES"], min_size=4, max_size=20) as pool:
        queries = Queries.from_asyncpg_pool(pool)

        async def one(job: dict[str, object]) -> int:
            payload = Payload.model_validate(job).model_dump_json().encode()
            identity: int = (await queries.enqueue("work", payload))[0]
            return identity

        async def read(identity: int) -> Mapping[str, Any]:
            result: dict[str, Any] = json.loads(
                await pool.fetchval("SELECT result FROM results WHERE id = $1", identity)
            )
            return result

        await obey_submitter(one, read)


if __name__ == "__main__":
    asyncio.run({"work": serve, "submit": submit}[sys.argv[1]]())
