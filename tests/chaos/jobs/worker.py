"""A worker process of durable jobs: `python -m tests.chaos.jobs.worker`."""

import asyncio
import os
import signal

from bus import Bus, Context, RetryPolicy, Router, Unavailable
from tests.chaos.jobs.contracts import SERVICE, Done, Step
from tests.chaos.jobs.crash_points import arm, reach

__all__ = ["router"]

router = Router(SERVICE)


@router.job(
    Step,
    concurrency=int(os.environ.get("BURST_CONCURRENCY", "20")),
    retry=RetryPolicy(attempts=5, first_delay=0.2, factor=1),
)
async def step(job: Step, context: Context) -> Done:
    """Return the number of the job, or fail in the first attempt."""
    if job.fails_once and context.envelope.attempt == 1:
        raise Unavailable("the first attempt of this job fails")
    reach("in-handler")
    return Done(number=job.number, attempt=context.envelope.attempt)


async def main() -> None:
    """Serve until SIGTERM."""
    arm()
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    async with Bus(SERVICE) as bus, bus.serving(router):
        print("ready", flush=True)
        await stop.wait()


if __name__ == "__main__":
    asyncio.run(main())
