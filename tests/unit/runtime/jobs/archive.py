"""A service with durable jobs, for the tests of the handles of jobs."""

import asyncio

from bus.contracts.contract import Job, Message, contract
from bus.contracts.retry_policy import RetryPolicy
from bus.errors import InvalidArgument
from bus.messaging.context import Context
from bus.runtime.router import Router

__all__ = ["Copied", "CopyPages", "ScanPages", "archive"]


class Copied(Message):
    pages: int
    text: str = ""


@contract("archive.copy", version=1, retry=RetryPolicy(attempts=2, delays=(3600,)))
class CopyPages(Job[Copied]):
    pages: int = 1


@contract("archive.scan", version=1)
class ScanPages(Job[Copied]):
    pages: int = 1


def archive(gate: asyncio.Event | None = None, *, text: str = "") -> Router:
    """Return a router whose job `copy` reports progress, and then waits for the gate."""
    router = Router("archive")

    @router.job(CopyPages)
    async def copy(job: CopyPages, context: Context) -> Copied:
        await context.progress(0.25, "begun")
        if gate is not None:
            await gate.wait()
        if job.pages < 0:
            raise InvalidArgument("pages must not be negative")
        return Copied(pages=job.pages, text=text)

    @router.job(ScanPages)
    async def scan(job: ScanPages) -> Copied:
        return Copied(pages=job.pages)

    return router
