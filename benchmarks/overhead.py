"""The cost of the policies: requests with 100 in flight, beside an earlier version of the bus.

usage: python -m benchmarks.overhead [--before COMMIT] [--starts 5] [--rounds 10] [--calls 1000]

Three processes take turns in each round: the earlier version, this version with the defaults, and
this version with every policy off. Each has a caller and a worker. On RabbitMQ each has a virtual
host of its own. The result is the median of the ratios of all rounds.
"""

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
from asyncio import StreamReader, StreamWriter
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.pairs import Cost, load, quartiles, take_turns
from bus.testing import isolated, running_broker, virtual_host

__all__ = ["Side", "main", "side", "unpack"]

ROOT = Path(__file__).parents[1]
BEFORE = "0e9bbf8e"
"""The last commit without policies."""
REQUIRED = {"defaults": 0.93, "off": 0.98}
"""The promised rate, as a part of the rate of the earlier version."""
OFF = {"retries": 0, "retry_budget": "off", "breaker": "off", "max_in_flight": "off"}
SETTINGS: Mapping[str, Mapping[str, Any]] = {"before": {}, "defaults": {}, "off": OFF}


def unpack(commit: str, folder: Path) -> Path:
    """Return a folder with the package `bus` of a commit, and the benchmarks of this version."""
    tree = folder / "before"
    tree.mkdir()
    archive = subprocess.run(
        ["git", "archive", commit, "bus"],  # noqa: S607 - git is on the PATH of a developer
        cwd=ROOT,
        check=True,
        stdout=subprocess.PIPE,
    )
    subprocess.run(["tar", "-x"], cwd=tree, check=True, input=archive.stdout)  # noqa: S607
    (tree / "benchmarks").symlink_to(ROOT / "benchmarks")
    return tree


@dataclass(frozen=True, slots=True)
class Side:
    """The pipes of one process."""

    numbers: StreamWriter
    costs: StreamReader

    async def measure(self, calls: int, work: str = "request") -> Cost:
        """Let the process do a work, and return its cost."""
        self.numbers.write(f"{work} {calls}\n".encode())
        return Cost(**json.loads(await self.costs.readline()))


@asynccontextmanager
async def side(tree: Path, settings: Mapping[str, Any], url: str | None) -> AsyncIterator[Side]:
    """Start one side in a process, and end it after the block."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "benchmarks.overhead_side", json.dumps(settings)),
        *([url] if url else []),
        cwd=tree,
        env=isolated(os.environ) | {"PYTHONPATH": str(tree), "PYTHONHASHSEED": "0"},
        stdin=PIPE,
        stdout=PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        if process.stdin is None or process.stdout is None:
            raise RuntimeError("the process has no pipes")
        if (ready := await process.stdout.readline()) != b"ready\n":
            raise RuntimeError(f"{tree}: the process has not started: {ready!r}. Run it by hand.")
        yield Side(process.stdin, process.stdout)
    finally:
        if process.stdin is not None:
            process.stdin.close()
        await process.wait()


async def compare(
    before: Path, urls: Mapping[str, str | None], rounds: int, calls: int
) -> list[dict[str, Cost]]:
    """Return the costs of each round, by the name of the side."""
    async with AsyncExitStack() as stack:
        trees = {"before": before}
        sides = {
            name: await stack.enter_async_context(
                side(trees.get(name, ROOT), SETTINGS[name], urls[name])
            )
            for name in SETTINGS
        }

        turns = [partial(each.measure, calls) for each in sides.values()]
        return [dict(zip(sides, costs, strict=True)) for costs in await take_turns(turns, rounds)]


def report(place: str, found: Sequence[Mapping[str, Cost]]) -> bool:
    """Print the ratios, and return True if each is at least the required one."""
    reached = True
    for name, required in REQUIRED.items():
        rates = [costs["before"].elapsed / costs[name].elapsed for costs in found]
        processor = [costs["before"].processor / costs[name].processor for costs in found]
        added = [costs[name].processor - costs["before"].processor for costs in found]
        print(
            f"{place}, {name}: rate {quartiles(rates)}, processor {quartiles(processor)}, "
            f"{quartiles(added, 1)} µs more; {len(found)} rounds, {load()}"
        )
        reached = reached and statistics.median(processor) >= required
    return reached


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print the medians, and return 1 if a ratio is below the required one."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.overhead", description=__doc__)
    parser.add_argument("--before", default=BEFORE, help="commit of the earlier version")
    parser.add_argument("--starts", type=int, default=5, help="fresh processes of each side")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--calls", type=int, default=1000)
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        before = unpack(options.before, Path(folder))

        def places(urls: Mapping[str, str | None]) -> list[dict[str, Cost]]:
            # The layout of the memory gives each process an advantage or a disadvantage.
            return [
                costs
                for _ in range(options.starts)
                for costs in asyncio.run(compare(before, urls, options.rounds, options.calls))
            ]

        reached = report("in memory", places(dict.fromkeys(SETTINGS)))
        with running_broker(os.environ) as broker, ExitStack() as hosts:
            urls = {name: hosts.enter_context(virtual_host(broker)).url for name in SETTINGS}
            return int(not (report("on RabbitMQ", places(urls)) and reached))


if __name__ == "__main__":
    sys.exit(main())
