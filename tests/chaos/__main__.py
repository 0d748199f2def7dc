"""The long form of the chaos tests, one class of faults after the other: `python -m tests.chaos`.

The figures go to `docs/reliability.json`, and `docs/reliability.md` shows them.
"""

import argparse
import asyncio
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from benchmarks.environments import Absent
from bus.operations.brokers.installation import find_installation, versions
from bus.operations.brokers.select import INSTALL
from tests.chaos import page
from tests.chaos.campaign import Size, broken, play
from tests.chaos.exams import EXAMS
from tests.chaos.faults import FAULTS
from tests.chaos.node import ChaosNode
from tests.chaos.peers.parties import PEERS, peer
from tests.chaos.report import Figures, added, by_fault, load, save
from tests.chaos.scene import OURS, Party
from tests.chaos.table import row, table

PART = 10_000
"""Messages of one part, which is repeated if the run is interrupted."""
RATE, SENDERS, PATIENCE = 800.0, 200, 150.0
"""Messages a second, sends in flight, and seconds for each send.

The seconds are longer than a fault on a machine that other processes share.
"""
PEER_FAULTS = (
    "kill-broker",
    "close-connections",
    "reset",
    "swallowed-confirms",
    "channel-error",
    "kill-worker",
)
"""Faults that do not need the bus's own queues."""
PEER_MESSAGES = 2_000


def main(arguments: list[str]) -> int:
    """Return 0 if the bus kept all promises; peers are not judged."""
    parser = argparse.ArgumentParser(prog="make chaos", description=__doc__)
    parser.add_argument(
        "--only",
        help="classes or exams to run, separated by commas",
        metavar="|".join([*FAULTS, *EXAMS]),
    )
    parser.add_argument(
        "--messages", type=int, default=100_000, help="messages for each class (default: 100,000)"
    )
    parser.add_argument(
        "--seed",
        type=int,
        default=1,
        help="seed of the first part; each later part has the next number",
    )
    parser.add_argument(
        "--peers", help=f"peers to run instead of the bus, separated by commas: {', '.join(PEERS)}"
    )
    parser.add_argument(
        "--list", action="store_true", help="list all classes and exams with their progress"
    )
    options = parser.parse_args(arguments)
    figures = load()
    if options.list:
        print("\n".join(page.progress(figures)))
        return 0
    chosen = (
        options.only.split(",")
        if options.only
        else list(PEER_FAULTS)
        if options.peers
        else [*FAULTS, *EXAMS]
    )
    if unknown := [name for name in chosen if name not in FAULTS and name not in EXAMS]:
        parser.error(
            f"--only has unknown names: {', '.join(unknown)}. Use --list to see all names."
        )
    installation = find_installation(os.environ)
    if installation is None:
        parser.error(INSTALL)
    run = Run(figures, ChaosNode(installation), versions(installation)["rabbitmq"], options.seed)
    try:
        if options.peers:
            return asyncio.run(run.peers([*options.peers.split(",")], chosen))
        return asyncio.run(run.ours(chosen, options.messages))
    except KeyboardInterrupt:
        print(
            "chaos: interrupted; finished parts are saved, and the next run continues after them",
            file=sys.stderr,
        )
        return 130


class Run:
    """A run of the long form."""

    def __init__(self, figures: Figures, node: ChaosNode, rabbitmq: str, seed: int) -> None:
        self._figures, self._node, self._rabbitmq, self._seed = figures, node, rabbitmq, seed
        self._failed = 0

    async def ours(self, names: Sequence[str], messages: int) -> int:
        """Run the unfinished parts for the bus, and return the exit code."""
        try:
            for name in names:
                if name in EXAMS:
                    await self._exam(name)
                    continue
                for part in range(-(-messages // PART)):
                    # A sender continues until the last fault of a part is over.
                    if self._sent(name) >= messages:
                        break
                    size = Size(
                        messages=PART,
                        faults=FAULTS[name].faults,
                        seed=self._seed + part,
                        rate=RATE,
                        senders=SENDERS,
                        timeout=PATIENCE,
                    )
                    await self._part(OURS, name, part, size)
        finally:
            await self._node.stop()
        return 1 if self._failed else 0

    def _sent(self, name: str) -> int:
        done = by_fault(self._figures, OURS.name)
        return done[name]["messages"] if name in done else 0

    async def peers(self, titles: Sequence[str], names: Sequence[str]) -> int:
        """Run the short form for each peer, and return the exit code."""
        try:
            for title in titles:
                try:
                    party = peer(title)
                except Absent as missing:
                    print(f"chaos: without {title}: {missing.why}")
                    continue
                for name in (
                    names
                    if party.confirms
                    else [name for name in names if name != "swallowed-confirms"]
                ):
                    await self._part(
                        party,
                        name,
                        0,
                        Size(messages=PEER_MESSAGES, faults=FAULTS[name].faults, seed=self._seed),
                    )
        finally:
            await self._node.stop()
        return 0

    async def _part(self, party: Party, name: str, number: int, size: Size) -> None:
        if any(
            (each["party"], each["fault"], each["part"]) == (party.name, name, number)
            for each in self._figures["parts"]
        ):
            return
        await self._node.start()
        print(f"chaos: {party.name}, {name}, part {number + 1}", flush=True)
        with tempfile.TemporaryDirectory(prefix="bus-chaos-") as directory:
            played = await play(FAULTS[name], size, self._node, Path(directory), party=party)
        print("\n".join(table([row(played)])), flush=True)
        if party is OURS and (why := broken(played, FAULTS[name])):
            self._failed += 1
            print(f"chaos: {name}: {'; '.join(why)}", file=sys.stderr, flush=True)
        added(self._figures, row(played), part=number, rabbitmq=self._rabbitmq)
        self._kept()

    async def _exam(self, name: str) -> None:
        recorded = self._figures["exams"].get(name)
        if recorded is not None and EXAMS[name].is_complete(recorded):
            return
        await self._node.start()
        print(f"chaos: {EXAMS[name].title}", flush=True)
        with tempfile.TemporaryDirectory(prefix="bus-chaos-") as directory:
            found = await EXAMS[name].sit(self._node, Path(directory))
        print(f"  {found}", flush=True)
        if why := EXAMS[name].broken(found):
            self._failed += 1
            print(f"chaos: {name}: {why}", file=sys.stderr, flush=True)
        self._figures["exams"][name] = found
        self._kept()

    def _kept(self) -> None:
        save(self._figures)
        page.write(self._figures)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
