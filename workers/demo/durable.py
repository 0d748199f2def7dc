"""Steps that need a durable store: a cancelled job, and a worker that is killed and replaced."""

import asyncio
from collections.abc import Callable

from bus import Cancelled, JobHandle, Progress
from bus.errors import error_for
from contracts.transcription.client import TranscriptionClient
from contracts.transcription.v1 import Transcript

__all__ = ["begun", "cancelled"]

POLL_INTERVAL = 0.05
"""Seconds between two questions about the state of a job."""
TIMEOUT = 300.0


async def cancelled(client: TranscriptionClient, recording: str) -> str:
    """Submit a recording, cancel its job while it runs, and return how the job ended.

    A short recording can end before it learns of the cancellation.
    """
    job = await client.create(recording)
    async with asyncio.timeout(TIMEOUT):
        while (await job.status()).state == "queued":  # noqa: ASYNC110 - another process claims it
            await asyncio.sleep(POLL_INTERVAL)
    await job.cancel(reason="shown by the demonstration")
    try:
        await job.result(timeout=TIMEOUT)
    except Cancelled:
        return f"cancelled at {(await job.status()).progress:.0%}"
    return "it ended before the request"


async def begun(
    client: TranscriptionClient, recording: str, on_progress: Callable[[Progress], None]
) -> JobHandle[Transcript]:
    """Submit a recording, and return its job after the first progress update."""
    job = await client.create(recording)
    async for update in job.updates():
        if update.error is not None:
            raise error_for(update.error, update.note)
        on_progress(update)
        break
    return job
