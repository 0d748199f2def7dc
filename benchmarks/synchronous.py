"""The cost of `SyncBus.request` beside `Bus.request`, with one request in flight.

usage: python -m benchmarks.synchronous [--rounds 100] [--calls 50]

The two callers take turns in each round, on the same broker and in the same process. A busy minute
of the machine therefore affects both. The cost is the median of the differences of all rounds.
"""

import argparse
import asyncio
import os
import statistics
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress

from pydantic import SecretStr

from bus import Bus, Message, Request, Router, Settings, SyncBus, contract
from bus.testing import SyncMemoryBuses, isolated, running_broker

__all__ = ["Echo", "Echoed", "main", "router", "worker"]

LIMIT_MICROSECONDS = 60
"""The promised cost of a synchronous call beside an asynchronous one."""
READY = "serving"
START_SECONDS, STOP_SECONDS = 30.0, 10.0
"""Maximum seconds until the worker serves, and until it has ended."""


class Echoed(Message):
    """The reply."""

    number: int


@contract("synchronous.echo", version=1, idempotent=True)
class Echo(Request[Echoed]):
    """A request that is answered at once."""

    number: int


router = Router("synchronous")


@router.request(Echo)
async def echo(request: Echo) -> Echoed:
    """Return the number of the request."""
    return Echoed(number=request.number)


@asynccontextmanager
async def worker(
    environment: dict[str, str], target: str = "benchmarks.synchronous:router"
) -> AsyncIterator[int]:
    """Serve a router in another process inside the block, and yield the id of the process.

    Raises:
        RuntimeError: The worker ended, or was not ready within `START_SECONDS`. The error has the
            output of the worker.
    """
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "bus.cli", "run", target),
        env=environment,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        await wait_ready(process)
        yield process.pid
    finally:
        await stop(process)


async def wait_ready(process: asyncio.subprocess.Process) -> None:
    """Wait until the worker serves the router. `worker` describes the error."""
    output = process.stdout
    if output is None:
        raise RuntimeError("the output of the worker is not readable")
    lines: list[str] = []
    with suppress(TimeoutError):
        async with asyncio.timeout(START_SECONDS):
            async for line in output:
                lines.append(line.decode(errors="replace"))
                if READY in lines[-1]:
                    return
    raise RuntimeError(f"the worker was not ready. Correct its problem:\n{''.join(lines)}")


async def stop(process: asyncio.subprocess.Process) -> None:
    """Stop the worker, and kill it if it has not ended after `STOP_SECONDS`."""
    for end in (process.terminate, process.kill):
        with suppress(ProcessLookupError):  # it has ended by itself
            end()
        with suppress(TimeoutError):
            await asyncio.wait_for(process.wait(), STOP_SECONDS)
            return


Rounds = list[tuple[float, float]]
"""Microseconds of an asynchronous and of a synchronous request, for each round."""


def timed(calls: int, work: Callable[[], object]) -> float:
    """Return the microseconds that each of these calls took."""
    began = time.perf_counter()
    work()
    return (time.perf_counter() - began) / calls * 1e6


def alternating(
    calls: int,
    rounds: int,
    sync: SyncBus,
    asynchronous: Callable[[Callable[[Bus], Awaitable[None]]], object],
) -> Rounds:
    """Measure the two callers in turns.

    Args:
        calls: The requests of a caller in each round.
        rounds: The number of rounds.
        sync: The synchronous bus.
        asynchronous: Runs an asynchronous function with the asynchronous bus.
    """

    async def requests(bus: Bus) -> None:
        for number in range(calls):
            await bus.request(Echo(number=number), timeout=5)

    def synchronous_requests() -> None:
        for number in range(calls):
            sync.request(Echo(number=number), timeout=5)

    asynchronous(requests)  # warm-up
    synchronous_requests()
    return [
        (timed(calls, lambda: asynchronous(requests)), timed(calls, synchronous_requests))
        for _ in range(rounds)
    ]


def in_memory(rounds: int, calls: int) -> Rounds:
    """Measure on the broker in memory, where the worker runs in the same event loop."""
    sync = SyncBus("caller")
    with SyncMemoryBuses() as buses:
        buses.serve(router)
        buses.connect(sync)
        bus = buses.run(lambda: buses.buses.bus("other"))
        return alternating(calls, rounds, sync, lambda work: buses.run(lambda: work(bus)))


def on_rabbitmq(rounds: int, calls: int) -> Rounds:
    """Measure on RabbitMQ. The worker has a process of its own."""
    with running_broker(os.environ) as broker, asyncio.Runner() as runner:
        environment = isolated(os.environ) | {"BUS_URL": broker.url, "BUS_AUTH": "off"}
        settings = Settings(url=SecretStr(broker.url), auth="off")
        bus, serving = Bus("caller", settings=settings), worker(environment)
        runner.run(serving.__aenter__())
        try:
            runner.run(bus.__aenter__())
            try:
                with SyncBus("caller", settings=settings) as sync:
                    return alternating(calls, rounds, sync, lambda work: runner.run(run(work, bus)))
            finally:
                runner.run(bus.__aexit__(None, None, None))
        finally:
            runner.run(serving.__aexit__(None, None, None))


async def run(work: Callable[[Bus], Awaitable[None]], bus: Bus) -> None:
    """Call an asynchronous function. A runner takes only coroutines."""
    await work(bus)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print the medians, and return 1 if a cost is above the limit."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.synchronous", description=__doc__)
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--calls", type=int, default=50)
    options = parser.parse_args(arguments)
    found = {
        "in memory": in_memory(options.rounds, options.calls),
        "on RabbitMQ": on_rabbitmq(options.rounds, options.calls),
    }
    costs = [report(name, rounds) for name, rounds in found.items()]
    return int(max(costs) > LIMIT_MICROSECONDS)


def report(name: str, found: Rounds) -> float:
    """Print the medians, and return the median of the costs of all rounds."""
    plain, sync = (statistics.median(values) for values in zip(*found, strict=True))
    low, cost, high = statistics.quantiles([sync - plain for plain, sync in found], n=4)
    print(
        f"{name}: Bus {plain:.0f} µs, SyncBus {sync:.0f} µs, cost {cost:.0f} µs a request "
        f"(quartiles {low:.0f} and {high:.0f}; load {os.getloadavg()[0]:.1f})"
    )
    return cost


if __name__ == "__main__":
    sys.exit(main())
