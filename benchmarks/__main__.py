"""The command `python -m benchmarks`: start a private broker, measure, and report."""

import argparse
import asyncio
import contextlib
import json
import os
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

from benchmarks import page as pages
from benchmarks.actor import ROOT, RunFailed
from benchmarks.durable import durable
from benchmarks.environments import cache
from benchmarks.machine import described, peer_versions, today
from benchmarks.peers import PEERS, prepare
from benchmarks.waiting import waiting
from benchmarks.works import (
    CLOSED,
    HEADLINE,
    Rounds,
    Run,
    closed,
    fanout,
    flow,
    jobs,
    latency,
    scaling,
)
from bus.errors import BusError
from bus.operations.brokers.broker import Broker
from bus.operations.brokers.installation import find_installation
from bus.operations.brokers.installation import versions as broker_versions
from bus.operations.brokers.private_node import PrivateNode
from bus.operations.brokers.select import broker_for, select_broker

Work = Callable[[Run], Awaitable[dict[str, Rounds]]]
KEPT = (
    "rate",
    "count",
    "seconds",
    "p50",
    "p99",
    "p999",
    "cpu",
    "rss",
    "rss_early",
    "waiting",
    "others",
)
"""The values of a round that benchmarks.json keeps."""
NODE = {
    "vm_memory_high_watermark.absolute": "4GB",  # an alarm would block a million publishes
    "raft.wal_max_size_bytes": "536870912",  # RabbitMQ's default; a private node has less
}


def rpc(*names: str) -> Work:
    """Return the closed-loop workloads with these names, as one function."""

    async def work(run: Run) -> dict[str, Rounds]:
        return await closed(run, names)

    return work


WORKS: dict[str, Work] = {
    "rpc": rpc(*CLOSED),
    "flow": flow,
    "fanout": fanout,
    "jobs": jobs,
    "durable": durable,
    "scaling": scaling,
    "latency": latency,
    "waiting": waiting,
}
ALSO: dict[str, Work] = {
    **{name: rpc(name) for name in CLOSED},
    "publish": flow,
    "consume": flow,
    "memory": waiting,
}
"""Further names for `--only`."""


def main(arguments: list[str]) -> int:
    """Measure the workloads and peers that the arguments select, and return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    quick = "fewer and shorter rounds, no million messages (two minutes; writes no page)"
    output = "directory for benchmarks.md, .json and .svg (default for a full run: docs/)"
    parser.add_argument("--quick", action="store_true", help=quick)
    names = "|".join([*WORKS, *ALSO])
    parser.add_argument("--only", help="workloads, separated by commas", metavar=names)
    parser.add_argument("--peers", help=f"peers, separated by commas: {', '.join(PEERS)}")
    parser.add_argument("--rounds", type=int, help="number of rounds of each workload")
    parser.add_argument("--add", action="store_true", help="add to the figures in docs/")
    parser.add_argument("--output", type=Path, help=output)
    options = parser.parse_args(arguments)
    known = {**WORKS, **ALSO}
    chosen = (
        options.only.split(",")
        if options.only
        else [name for name in WORKS if not (options.quick and name == "waiting")]
    )
    if unknown := [name for name in chosen if name not in known]:
        parser.error(f"unknown workload: {', '.join(unknown)}")
    keys = set(options.peers.split(",")) if options.peers else set(PEERS)
    if unknown := sorted(keys - set(PEERS)):
        parser.error(f"unknown peer: {', '.join(unknown)}")
    whole = not (options.quick or options.only or options.peers or options.rounds)
    target = options.output or (ROOT / "docs" if whole or options.add else cache())
    try:
        figures = asyncio.run(
            measure(
                {name: known[name] for name in chosen},
                keys,
                quick=options.quick,
                rounds=options.rounds,
            )
        )
    except (RunFailed, BusError) as failed:
        print(f"bench: {failed}", file=sys.stderr)
        return 1
    written(added(figures, ROOT / "docs") if options.add else figures, target)
    return 0


async def measure(
    works: dict[str, Work], keys: set[str], *, quick: bool, rounds: int | None
) -> dict[str, Any]:
    """Measure the workloads, and return the content of benchmarks.json."""
    began, machine = time.monotonic(), described()
    here, absent = prepare(keys)
    versions = peer_versions(here)  # read first: the checkout may change during the run
    for key, why in absent.items():
        print(f"bench: without {PEERS[key].title}: {why}")
    async with broker() as (url, pids, about):
        print(f"bench: on {about['broker']}, RabbitMQ {about['rabbitmq']}", flush=True)
        run = Run(
            url=url,
            broker=pids,
            peers=here,
            quick=quick,
            rounds=rounds,
            say=lambda line: print(line, flush=True),
        )
        found: dict[str, Rounds] = {}
        for name, work in works.items():
            run.scope = name
            found |= await work(run)
    print(f"bench: measured in {time.monotonic() - began:.0f} s")
    return {
        "date": today(),
        "quick": quick,
        "rounds": run.times(HEADLINE),
        "machine": machine,
        **about,
        "versions": versions,
        "names": {key: peer.title for key, peer in PEERS.items()},
        "absent": {PEERS[key].title: why for key, why in absent.items()},
        "notes": run.notes,
        "works": {
            work: {peer: [kept(each) for each in samples] for peer, samples in by.items()}
            for work, by in found.items()
        },
    }


@contextlib.asynccontextmanager
async def broker() -> AsyncIterator[tuple[str, list[int], dict[str, str]]]:
    """Yield a broker: its URL, its processes if this run started them, and its description."""
    choice = select_broker(os.environ)
    chosen: Broker = (
        PrivateNode(choice.installation, config=NODE) if choice.installation else broker_for(choice)
    )
    await chosen.start()
    try:
        pids = [chosen.pids["node"]] if isinstance(chosen, PrivateNode) else []
        installation = find_installation(os.environ) if pids else None
        number = (
            broker_versions(installation)["rabbitmq"] if installation else "of an unknown version"
        )
        kind = {
            "node": "a private node",
            "container": "a container",
            "named": "a broker that BUS_URL names",
        }[choice.kind]
        yield chosen.url, pids, {"broker": kind, "rabbitmq": number}
    finally:
        await chosen.stop()


def added(figures: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Return the figures in a folder with those of this run in addition.

    The page states the date and the load of the added workloads.
    """
    before = json.loads((folder / "benchmarks.json").read_text(encoding="utf-8"))
    text = pages.origin(figures)
    before["works"] |= figures["works"]
    before["names"] |= figures["names"]
    before["absent"] |= figures["absent"]
    before["versions"] |= {
        title: version
        for title, version in figures["versions"].items()
        if title not in before["versions"]
    }
    before["notes"] = list(dict.fromkeys([*before["notes"], *figures["notes"]]))
    before.setdefault("added", {}).update(dict.fromkeys(figures["works"], text))
    return before  # type: ignore[no-any-return]


def kept(sample: dict[str, Any]) -> dict[str, Any]:
    """Return the values of a round to keep, rounded."""
    return {key: rounded(sample[key]) for key in KEPT if key in sample}


def rounded(value: Any) -> Any:
    """Round floats to four digits after the point."""
    if isinstance(value, dict):
        return {key: rounded(each) for key, each in value.items()}
    return round(value, 4) if isinstance(value, float) else value


def written(figures: dict[str, Any], target: Path) -> None:
    """Write the three files, and print the results and the targets."""
    target.mkdir(parents=True, exist_ok=True)
    try:
        # Only the chart needs matplotlib, and the figures are useful without a chart.
        from benchmarks.chart import draw  # noqa: PLC0415
    except ImportError:
        figures["notes"].append("No chart was drawn: matplotlib is not installed (extra `bench`).")
    else:
        draw(figures["works"], figures["names"], target / "benchmarks.svg")
    (target / "benchmarks.json").write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    (target / "benchmarks.md").write_text(pages.page(figures), encoding="utf-8")
    for work, by in figures["works"].items():
        print(f"\n{work}")
        for line in pages.lines(figures["works"], work, by, figures["names"]):
            print(f"  {line}")
    print()
    print("\n".join(pages.targets(figures["works"])))
    print(f"\nbench: {target / 'benchmarks.md'}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
