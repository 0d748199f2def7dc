"""The cost of durable jobs for a service without a store, beside an earlier version of the bus.

usage: python -m benchmarks.without_store [--before COMMIT] [--starts 3] [--rounds 9] [--calls 1000]

Two processes take turns in each round: the earlier version, and this version without a store. Each
has a caller and a worker, and a virtual host of its own on RabbitMQ. Requests, events and jobs have
100 calls in flight. The result is the median of the ratios of all rounds.
"""

import argparse
import asyncio
import os
import statistics
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack, ExitStack
from functools import partial
from pathlib import Path

from benchmarks.actor import ROOT
from benchmarks.overhead import side, unpack
from benchmarks.pairs import Cost, load, quartiles, take_turns
from bus.testing import running_broker, virtual_host

__all__ = ["main"]

BEFORE = "0a174c5a"
"""The last commit without a durable store."""
WORKS = {
    "request": "a request and its reply",
    "event": "an event, published with confirm and handled",
    "job": "a job, from submit to its result",
}
REQUIRED = 0.97
"""The promised rate, as a part of the rate of the earlier version."""
Pairs = list[tuple[Cost, ...]]
"""The costs of the earlier version and of this one, for each round."""


async def compare(
    trees: Sequence[Path], urls: Sequence[str], rounds: int, calls: int
) -> dict[str, Pairs]:
    """Return the costs of each round, by work."""
    async with AsyncExitStack() as stack:
        sides = [
            await stack.enter_async_context(side(tree, {}, url))
            for tree, url in zip(trees, urls, strict=True)
        ]
        return {
            work: await take_turns([partial(each.measure, calls, work) for each in sides], rounds)
            for work in WORKS
        }


def report(found: Mapping[str, Pairs]) -> bool:
    """Print the ratios, and return True if each is at least the required one."""
    reached = True
    for work, pairs in found.items():
        rates = [before.elapsed / now.elapsed for before, now in pairs]
        processor = [before.processor / now.processor for before, now in pairs]
        added = [now.processor - before.processor for before, now in pairs]
        print(
            f"{WORKS[work]}: rate {quartiles(rates)}, processor {quartiles(processor)}, "
            f"{quartiles(added, 1)} µs more; {len(pairs)} rounds, {load()}"
        )
        reached = reached and statistics.median(processor) >= REQUIRED
    return reached


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print the medians, and return 1 if a ratio is below the required one."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.without_store", description=__doc__)
    parser.add_argument("--before", default=BEFORE, help="commit of the earlier version")
    parser.add_argument("--starts", type=int, default=3, help="fresh processes of each side")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--calls", type=int, default=1000)
    options = parser.parse_args(arguments)
    found: dict[str, Pairs] = {work: [] for work in WORKS}
    with (
        tempfile.TemporaryDirectory() as folder,
        running_broker(os.environ) as broker,
        ExitStack() as hosts,
    ):
        trees = [unpack(options.before, Path(folder)), ROOT]
        urls = [hosts.enter_context(virtual_host(broker)).url for _ in trees]
        for _ in range(options.starts):
            # The layout of the memory gives each process an advantage or a disadvantage.
            pairs = asyncio.run(compare(trees, urls, options.rounds, options.calls))
            for work, more in pairs.items():
                found[work] += more
    return int(not report(found))


if __name__ == "__main__":
    sys.exit(main())
