"""A burst of durable jobs from many clients to several worker processes.

`python -m tests.chaos.jobs.burst --store URL --jobs 10000` runs it. `BUS_URL` is the broker.
"""

import argparse
import asyncio
import os
import sys
import time
from collections import Counter
from contextlib import AsyncExitStack
from dataclasses import dataclass, field

from pydantic import SecretStr

from bus import Bus, BusError, Settings
from tests.chaos.jobs.contracts import Done, Step

__all__ = ["Burst", "BurstResult", "run_burst"]

RESULT_SECONDS = 300.0


@dataclass(frozen=True, kw_only=True)
class Burst:
    """The size of a burst."""

    jobs: int
    clients: int = 50
    workers: int = 4
    failing_percent: int = 5


@dataclass(kw_only=True)
class BurstResult:
    """The ends of all handles."""

    right: int = 0
    repeated: int = 0
    """Jobs that succeeded in their second attempt."""
    wrong: list[str] = field(default_factory=list)
    """Descriptions of handles that ended in another way."""
    seconds: float = 0.0


class WorkerProcess:
    """One process of the service."""

    def __init__(self, environment: dict[str, str]) -> None:
        self._environment = environment
        self.process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        """Start the process, and wait until it serves."""
        self.process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "tests.chaos.jobs.worker"),
            env=self._environment,
            stdout=asyncio.subprocess.PIPE,
        )
        assert self.process.stdout is not None
        line = await asyncio.wait_for(self.process.stdout.readline(), 60)
        assert line == b"ready\n", "the worker has ended before it was ready"

    async def stop(self) -> None:
        """Stop the process cleanly."""
        if self.process is not None and self.process.returncode is None:
            self.process.terminate()
            await asyncio.wait_for(self.process.wait(), 60)


async def run_burst(burst: Burst, *, url: str, store: str) -> BurstResult:
    """Submit the jobs, wait for the end of each handle, and compare the results.

    Args:
        burst: Size of the burst.
        url: URL of the broker.
        store: Value of `BUS_STORE` for the workers. Its tables exist.
    """
    environment = {**os.environ, "BUS_URL": url, "BUS_STORE": store, "BUS_AUTH": "off"}
    workers = [WorkerProcess(environment) for _ in range(burst.workers)]
    result = BurstResult()
    try:
        await asyncio.gather(*(worker.start() for worker in workers))
        async with AsyncExitStack() as stack:
            clients = [
                await stack.enter_async_context(
                    Bus(f"client{number}", settings=Settings(url=SecretStr(url), auth="off"))
                )
                for number in range(burst.clients)
            ]
            began = time.monotonic()
            numbers = range(burst.jobs)
            shares = [numbers[first :: burst.clients] for first in range(burst.clients)]
            await asyncio.gather(
                *(
                    _submit_share(client, share, burst, result)
                    for client, share in zip(clients, shares, strict=True)
                )
            )
            result.seconds = time.monotonic() - began
    finally:
        await asyncio.gather(*(worker.stop() for worker in workers))
    return result


async def _submit_share(client: Bus, share: range, burst: Burst, result: BurstResult) -> None:
    every = 100 // burst.failing_percent
    jobs = [Step(number=number, fails_once=number % every == 0) for number in share]
    handles = [await client.submit(job) for job in jobs]
    for job, handle in zip(jobs, handles, strict=True):
        try:
            done = await handle.result(timeout=RESULT_SECONDS)
        except BusError as error:
            result.wrong.append(f"{job.number}: {type(error).__name__}")
            continue
        _judge(job, done, result)


def _judge(job: Step, done: Done, result: BurstResult) -> None:
    if done.number != job.number or (done.attempt == 1) == job.fails_once:
        result.wrong.append(f"{job.number}: the result of {done.number}, attempt {done.attempt}")
        return
    result.right += 1
    result.repeated += job.fails_once


def main() -> None:
    """Run a burst from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--store", required=True, help="value of BUS_STORE, with its tables")
    parser.add_argument("--jobs", type=int, default=10_000)
    parser.add_argument("--clients", type=int, default=50)
    parser.add_argument("--workers", type=int, default=4)
    options = parser.parse_args()
    burst = Burst(jobs=options.jobs, clients=options.clients, workers=options.workers)
    found = asyncio.run(run_burst(burst, url=os.environ["BUS_URL"], store=options.store))
    print(
        f"right: {found.right}, repeated: {found.repeated}, wrong: "
        f"{Counter(each.partition(': ')[2] for each in found.wrong)}, "
        f"seconds: {found.seconds:.1f}, jobs/s: {burst.jobs / found.seconds:.0f}"
    )


if __name__ == "__main__":
    main()
