"""The bus with jobs: in a store that `BUS_STORE` names, or without one."""

import asyncio
import os
import sys
from collections.abc import Mapping
from typing import Any

from benchmarks.actors.stage import obey
from benchmarks.actors.submitting import done, obey_submitter
from benchmarks.payload import Payload
from bus import Bus, Job, Message, Router, contract
from bus.operations.logging import configure_logging
from bus.settings import load_settings

SERVICE = os.environ.get("BENCH_SERVICE", "bench")
"""The service's name, which differs for each variant: they must not share a queue."""
CONCURRENCY = int(os.environ.get("BENCH_CONCURRENCY", "100"))
"""Handlers at a time, as many as Taskiq's default."""


class Done(Message):
    """The result, with the content of the job."""

    number: int
    audio_url: str
    language: str
    seconds: float
    text: str


@contract(f"{SERVICE}.stored", version=1)
class Work(Job[Done]):
    """A job with a result."""

    number: int
    audio_url: str
    language: str
    seconds: float
    text: str


async def work() -> None:
    """Handle jobs."""
    router = Router(SERVICE)

    @router.job(Work, concurrency=CONCURRENCY)
    async def handle(job: Work) -> Done:
        return Done.model_validate(done(Payload.model_construct(**job.model_dump())))

    async with Bus(SERVICE) as bus, bus.serving(router):
        await obey()


async def submit() -> None:
    """Submit jobs, and read each result by its id from the owner's store."""
    async with Bus("submitter") as bus:

        async def one(job: dict[str, object]) -> str:
            handle = await bus.submit(Work.model_validate(job))
            return handle.id

        async def read(identity: str) -> Mapping[str, Any]:
            result = await bus.job(Work, identity).result(timeout=30)
            return result.model_dump()

        await obey_submitter(one, read)


async def hold() -> None:
    """Submit jobs, and keep each handle, which receives the result without a store."""
    async with Bus("submitter") as bus:

        async def one(job: dict[str, object]) -> Any:
            return await bus.submit(Work.model_validate(job))

        async def read(handle: Any) -> Mapping[str, Any]:
            result: Done = await handle.result(timeout=30)
            return result.model_dump()

        await obey_submitter(one, read)


if __name__ == "__main__":
    configure_logging(load_settings())
    asyncio.run({"work": work, "submit": submit, "hold": hold}[sys.argv[1]]())
