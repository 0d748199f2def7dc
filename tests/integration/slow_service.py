"""A service for tests that returns its process id and sleeps for a given time."""

import asyncio
import os

from bus import Context, Job, Message, Request, Router, contract

__all__ = ["Nap", "ProcessId", "WhoAreYou", "router"]


class ProcessId(Message):
    process: int


@contract("slow.who", version=1, idempotent=True)
class WhoAreYou(Request[ProcessId]):
    """A request for the id of the process that serves."""


@contract("slow.nap", version=1)
class Nap(Job[ProcessId]):
    """A job that sleeps."""

    seconds: float


router = Router("slow")


@router.request(WhoAreYou)
async def who(_request: WhoAreYou) -> ProcessId:
    return ProcessId(process=os.getpid())


@router.job(Nap)
async def nap(job: Nap, context: Context) -> ProcessId:
    await context.progress(0, "begun")
    await asyncio.sleep(job.seconds)
    return ProcessId(process=os.getpid())
