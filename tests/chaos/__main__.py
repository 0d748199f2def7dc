"""`python -m tests.chaos`: the long form, class by class, appended to `docs/reliability.json` and shown in `docs/reliability.md`."""

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
"""Messages of one part: what is lost when a run is ended."""
RATE, SENDERS, PATIENCE = 800.0, 200, 150.0
"""Messages a second, sends under way, and seconds for each: more than a fault takes where others have the machine as well."""
PEER_FAULTS = (
    "kill-broker",
    "close-connections",
    "reset",
    "swallowed-confirms",
    "channel-error",
    "kill-worker",
)
"""Those that need nothing of the bus's own queues."""
PEER_MESSAGES = 2_000


def main(arguments: list[str]) -> int:
    """0 where everything that ran kept its promises; a peer need not."""
    parser = argparse.ArgumentParser(prog="make chaos", description=__doc__)
    parser.add_argument(
        "--only", help="classes or exams, with commas", metavar="|".join([*FAULTS, *EXAMS])
    )
    parser.add_argument("--messages", type=int, default=100_000, help="a class (default: 100,000)")
    parser.add_argument(
        "--seed", type=int, default=1, help="of the first part; each further one has the next"
    )
    parser.add_argument(
        "--peers", help=f"these instead of the bus, with commas: {', '.join(PEERS)}"
    )
    parser.add_argument(
        "--list", action="store_true", help="what there is, and what of it was done"
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
        parser.error(f"no such class: {', '.join(unknown)}")
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
            "chaos: ended; what was done is kept, and the next run goes on from there",
            file=sys.stderr,
        )
        return 130


class Run:
    """One run of the long form."""

    def __init__(self, figures: Figures, node: ChaosNode, rabbitmq: str, seed: int) -> None:
        self._figures, self._node, self._rabbitmq, self._seed = figures, node, rabbitmq, seed
        self._failed = 0

    async def ours(self, names: Sequence[str], messages: int) -> int:
        """The bus: every part that is not done."""
        try:
            for name in names:
                if name in EXAMS:
                    await self._exam(name)
                    continue
                for part in range(-(-messages // PART)):
                    if (
                        self._sent(name) >= messages
                    ):  # a sender goes on until the last fault of a part is over
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
        """Each peer, in a short form."""
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
        if name in self._figures["exams"]:
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
