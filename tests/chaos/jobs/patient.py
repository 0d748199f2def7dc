"""A worker process with a job that lasts until it is cancelled."""

import asyncio
import signal

from bus import Bus, Context, Job, Message, Router, contract
from bus.contracts.contract import Catalog

__all__ = ["Kept", "Wait", "router"]

catalog = Catalog()
router = Router("patient")


class Kept(Message):
    """Result of a job."""

    number: int


@contract("patient.wait", version=1, catalog=catalog)
class Wait(Job[Kept]):
    """A job that lasts until it is cancelled."""

    number: int = 0


@router.job(Wait, concurrency=1, timeout=600)
async def wait(job: Wait, context: Context) -> Kept:
    """Print each step, and wait for the request."""
    print(f"running {job.number}", flush=True)
    await context.wait_cancelled()
    print(f"told {job.number}", flush=True)
    raise ValueError("the job was cancelled, and its handler has cleaned up")


async def main() -> None:
    """Serve until SIGTERM."""
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    async with Bus("patient") as bus, bus.serving(router):
        print("ready", flush=True)
        await stop.wait()
        print("stopping", flush=True)


if __name__ == "__main__":
    asyncio.run(main())
