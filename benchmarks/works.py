"""The workloads. The peers take turns in each round: a busy minute of the machine affects all."""

import asyncio
import statistics
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from benchmarks.actor import Actor, RunFailed
from benchmarks.machine import busy_cores
from benchmarks.peers import (
    AIO_PIKA,
    CELERY,
    FASTSTREAM,
    NAMEKO,
    ON_FASTSTREAM,
    OURS,
    PLAIN,
    SIGNED,
    TASKIQ,
    C,
    Peer,
)
from benchmarks.trust import ROLES, Trust

__all__ = [
    "CLOSED",
    "HEADLINE",
    "SHARES",
    "SUBSCRIBERS",
    "WORKERS",
    "Rounds",
    "Run",
    "Sample",
    "closed",
    "fanout",
    "flow",
    "jobs",
    "latency",
    "measured",
    "scaling",
    "sides",
]

Sample = dict[str, Any]
Rounds = dict[str, list[Sample]]
"""Samples by peer, one for each round."""

WARM_UP = 0.4
"""Seconds of warm-up for connections, caches and code paths before the first round."""
RPC = (OURS, SIGNED, PLAIN, ON_FASTSTREAM, AIO_PIKA, FASTSTREAM, CELERY, NAMEKO, C)
FLOW = (OURS, SIGNED, PLAIN, ON_FASTSTREAM, AIO_PIKA, FASTSTREAM, C)
FANOUT = (OURS, SIGNED, AIO_PIKA, FASTSTREAM)
JOBS = (OURS, TASKIQ)
SCALING = (OURS, AIO_PIKA)
SUBSCRIBERS = (1, 5, 20)
WORKERS = (1, 2, 4)
SHARES = (25, 50, 75)
"""Loads in percent of the peak."""
BUSY = 0.3
"""Cores used by other programs, above which the progress line shows them."""
PUBLISHERS = 200
"""Publishes in flight at a time."""
HEADLINE = 15
"""Rounds of the workloads with a target: on a shared machine single ratios differ by a third."""


@dataclass(kw_only=True)
class Run:
    """One run: its broker, peers and duration, and its notes."""

    url: str
    broker: list[int]
    """The broker's processes, if this run started them."""
    peers: Mapping[str, Peer]
    quick: bool
    rounds: int | None = None
    scope: str = "bench"
    """The name of the current workload."""
    trust: Trust = field(default_factory=Trust)
    """The keys and grants of the signed services."""
    notes: list[str] = field(default_factory=list)
    say: Callable[[str], None] = print

    def times(self, full: int, quick: int = 2) -> int:
        """Return the number of rounds."""
        return self.rounds or (quick if self.quick else full)

    def long(self, seconds: float) -> float:
        """Return the seconds of a round."""
        return seconds * 0.5 if self.quick else seconds

    def who(self, wanted: Iterable[str]) -> list[Peer]:
        """Return the wanted peers that are available, in the order of their turns."""
        return [self.peers[key] for key in wanted if key in self.peers]

    def actor(
        self, peer: Peer, role: str, *words: str, more: Mapping[str, str] | None = None
    ) -> Actor:
        """Return one process of a peer, not started; `more` is added to its environment."""
        environment = {"BUS_URL": self.url, "BENCH_SERVICE": self.service(peer), **peer.environment}
        environment |= more or {}
        if peer.key == SIGNED:
            environment |= self.trust.of(ROLES.get(role, self.service(peer)))
        return Actor(f"{peer.title}, {role}", peer.command(role, *words, url=self.url), environment)

    def service(self, peer: Peer) -> str:
        """Return the name of the peer's service, which differs for each workload.

        An event of one workload must not reach the subscriptions of another.
        """
        return f"{peer.service}-{self.scope}"

    @asynccontextmanager
    async def cast(
        self, wanted: Iterable[str], *roles: tuple[str, ...]
    ) -> AsyncIterator[dict[str, list[Actor]]]:
        """Yield the running processes of each peer, in the order of the roles.

        A peer that does not start becomes a note. If it is a variant of the bus, the run fails.
        """
        async with AsyncExitStack() as stack:

            async def start(peer: Peer) -> list[Actor] | RunFailed:
                try:
                    return [
                        await stack.enter_async_context(self.actor(peer, *role)) for role in roles
                    ]
                except RunFailed as failed:
                    if peer.key in (OURS, SIGNED, PLAIN, ON_FASTSTREAM):
                        raise
                    return failed

            present: dict[str, list[Actor]] = {}
            everybody = self.who(wanted)
            for peer, started in zip(
                everybody, await asyncio.gather(*map(start, everybody)), strict=True
            ):
                if isinstance(started, RunFailed):
                    why = str(started).splitlines()[-1].strip()[:160]
                    self.notes.append(f"{peer.title} did not start and was left out: {why}")
                else:
                    present[peer.key] = started
            yield present


def sides(
    result: Mapping[str, Any], groups: Mapping[str, list[int]], count: int
) -> dict[str, float]:
    """Return the CPU microseconds for each message, by side."""
    used, at = {}, 0
    for name, pids in groups.items():
        used[name] = sum(result["cpu"][at : at + len(pids)]) / count * 1e6
        at += len(pids)
    return {name: value for name, value in used.items() if value}


async def measured(
    run: Run, teller: Actor, verb: str, groups: dict[str, list[int]], **words: object
) -> Sample:
    """Send one order, and return its rate, latencies and CPU."""
    groups = {**groups, "broker": run.broker}
    watch = ",".join(str(pid) for pids in groups.values() for pid in pids)
    before, busy = time.monotonic(), busy_cores()
    result = await teller.tell(verb, **words, watch=watch)
    others = (busy_cores() - busy - sum(result["cpu"])) / (time.monotonic() - before)
    if not result["count"]:
        raise RunFailed(f"{teller.name} processed no message in its round")
    used = sides(result, groups, result["count"])
    return {**result, "rate": result["count"] / result["seconds"], "cpu": used, "others": others}


@dataclass(frozen=True, kw_only=True)
class Closed:
    """A workload of callers that each wait for their answer."""

    in_flight: int
    seconds: float


CLOSED = {"rpc1": Closed(in_flight=1, seconds=0.7), "rpc100": Closed(in_flight=100, seconds=1.0)}


async def closed(run: Run, only: Iterable[str]) -> dict[str, Rounds]:
    """Measure RPC, and return the rounds by workload and peer."""
    works = {key: work for key, work in CLOSED.items() if key in only}
    async with run.cast(RPC, ("serve",), ("ask",)) as present:
        for _, client in present.values():
            await client.tell("rpc", in_flight=100, seconds=WARM_UP)
            await client.tell("rpc", in_flight=1, seconds=WARM_UP / 2)
        found: dict[str, Rounds] = {key: {peer: [] for peer in present} for key in works}
        for key, work in works.items():
            for number in range(run.times(HEADLINE)):
                for peer, (server, client) in present.items():
                    groups = {"client": client.pids, "server": server.pids}
                    sample = await measured(
                        run,
                        client,
                        "rpc",
                        groups,
                        in_flight=work.in_flight,
                        seconds=run.long(work.seconds),
                    )
                    found[key][peer].append(sample)
                tell(run, key, number, found[key])
        return found


def tell(run: Run, work: str, number: int, rounds: Rounds) -> None:
    """Print one line of progress for a round."""
    rates = "  ".join(
        f"{peer} {s[-1]['rate']:,.0f}/s{busy(s[-1])}" for peer, s in rounds.items() if s
    )
    run.say(f"bench: {work:10} round {number + 1}: {rates}")


def busy(sample: Sample) -> str:
    """Return the number of cores that other programs used, if it is large."""
    others = sample.get("others", 0)
    return f" ({others:.1f} cores busy with other programs)" if others > BUSY else ""


def same(peer: str, sent: Mapping[str, Any], came: Mapping[str, Any], times: int = 1) -> None:
    """Raise `RunFailed` unless each message arrived once; the C program only counts messages."""
    if "sum" in sent and "sum" in came and sent["sum"] * times != came["sum"]:
        raise RunFailed(f"{peer}: the consumed messages differ from the published ones")


async def flow(run: Run) -> dict[str, Rounds]:
    """Publish with confirm into an empty quorum queue for a second, then consume the messages.

    The two steps are two workloads.
    """
    seconds, found = run.long(1.0), {"publish": Rounds(), "consume": Rounds()}
    async with run.cast(FLOW, ("consume",), ("publish",)) as present:

        async def turn(sink: Actor, source: Actor, seconds: float) -> tuple[Sample, Sample]:
            sent = await measured(
                run,
                source,
                "publish",
                {"publisher": source.pids},
                in_flight=PUBLISHERS,
                seconds=seconds,
            )
            came = await measured(
                run, sink, "consume", {"consumer": sink.pids}, count=sent["count"]
            )
            same(sink.name, sent, came)
            return sent, came

        for peer, (sink, source) in present.items():
            await turn(sink, source, WARM_UP)
            found["publish"][peer], found["consume"][peer] = [], []
        for number in range(run.times(HEADLINE)):
            for peer, (sink, source) in present.items():
                sent, came = await turn(sink, source, seconds)
                found["publish"][peer].append(sent)
                found["consume"][peer].append(came)
            tell(run, "publish", number, found["publish"])
            tell(run, "consume", number, found["consume"])
    return found


async def through(run: Run, actors: list[Actor], verb: str, *, times: int, count: int) -> Sample:
    """Publish `count` messages and wait until all of them were handled `times` times.

    The rate is that of the published messages.
    """
    sink, source = actors
    groups = {"publisher": source.pids, "consumer": sink.pids, "broker": run.broker}
    await sink.tell(
        "expect",
        count=count * times,
        watch=",".join(str(pid) for pids in groups.values() for pid in pids),
    )
    sent = await source.tell(verb, in_flight=PUBLISHERS, count=count)
    came = await sink.tell("complete")
    same(sink.name, sent, came, times)
    seconds = came["ended"] - sent["began"]
    return {
        "count": count,
        "seconds": seconds,
        "rate": count / seconds,
        "cpu": sides(came, groups, count),
    }


async def between(
    run: Run,
    work: str,
    present: Mapping[str, list[Actor]],
    verbs: Mapping[str, str],
    *,
    times: int = 1,
) -> Rounds:
    """Repeat `through`, with rounds of the same duration for all peers.

    A warm-up determines the number of messages of each peer.
    """
    seconds, counts, found = run.long(1.0), {}, {peer: list[Sample]() for peer in present}
    for peer, actors in present.items():
        first = await through(
            run, actors, verbs.get(peer, "publish"), times=times, count=max(100, 2000 // times)
        )
        counts[peer] = max(100, int(first["rate"] * seconds))
    for number in range(run.times(5)):
        for peer, actors in present.items():
            found[peer].append(
                await through(
                    run, actors, verbs.get(peer, "publish"), times=times, count=counts[peer]
                )
            )
        tell(run, work, number, found)
    return found


async def fanout(run: Run) -> dict[str, Rounds]:
    """Measure events with 1, 5 and 20 subscriptions, from first publish to last handling."""
    verbs = {AIO_PIKA: "fanout", FASTSTREAM: "fanout"}
    found: dict[str, Rounds] = {}
    for number in (1, 20) if run.quick else SUBSCRIBERS:
        run.scope = f"fanout{number}"
        async with run.cast(FANOUT, ("subscribe", str(number)), ("publish",)) as present:
            found[f"fanout{number}"] = await between(
                run, f"fanout{number}", present, verbs, times=number
            )
    return found


async def jobs(run: Run) -> dict[str, Rounds]:
    """Measure jobs, from the first submit to the last completion."""
    async with run.cast(JOBS, ("work",), ("publish",)) as present:
        return {"jobs": await between(run, "jobs", present, {OURS: "submit", TASKIQ: "submit"})}


async def scaling(run: Run) -> dict[str, Rounds]:
    """Measure 1, 2 and 4 worker processes on one queue, with one client.

    The handlers are an echo, and one that waits 10 ms, four at a time in each process.
    """
    found: dict[str, Rounds] = {}
    for workers in (1, 4) if run.quick else WORKERS:
        async with run.cast(SCALING, *[("serve",)] * workers, ("ask",)) as present:
            for verb in ("rpc", "nap"):
                found[f"{verb}-workers{workers}"] = rounds = {
                    peer: list[Sample]() for peer in present
                }
                for *_, client in present.values():
                    await client.tell(verb, in_flight=100, seconds=WARM_UP)
                for number in range(run.times(3, 1)):
                    for peer, (*servers, client) in present.items():
                        groups = {
                            "client": client.pids,
                            "server": [pid for server in servers for pid in server.pids],
                        }
                        rounds[peer].append(
                            await measured(
                                run, client, verb, groups, in_flight=100, seconds=run.long(1.0)
                            )
                        )
                    tell(run, f"{verb} x{workers}", number, rounds)
    return found


async def latency(run: Run) -> dict[str, Rounds]:
    """Measure percentiles at 25, 50 and 75 percent of each peer's own peak, in an open loop.

    The peak is measured just before.
    """
    shares = (25, 75) if run.quick else SHARES
    async with run.cast(SCALING, ("serve",), ("ask",)) as present:
        peaks: dict[str, list[float]] = {peer: [] for peer in present}
        for _ in range(3):
            for peer, (_, client) in present.items():
                sample = await client.tell("rpc", in_flight=100, seconds=run.long(1.0))
                peaks[peer].append(sample["count"] / sample["seconds"])
        found: dict[str, Rounds] = {}
        for share in shares:
            found[f"latency{share}"] = rounds = {peer: list[Sample]() for peer in present}
            for number in range(run.times(3, 1)):
                for peer, (server, client) in present.items():
                    groups = {"client": client.pids, "server": server.pids}
                    rate = statistics.median(peaks[peer]) * share / 100
                    rounds[peer].append(
                        await measured(
                            run, client, "paced", groups, rate=f"{rate:.1f}", seconds=run.long(2.0)
                        )
                    )
                tell(run, f"latency{share}", number, rounds)
    return found
