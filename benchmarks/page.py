"""docs/benchmarks.md, wholly from the figures of one run."""

import statistics
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from benchmarks.conditions import TITLES, condition
from benchmarks.peers import OURS
from benchmarks.report import TARGETS, Spread, Works, cpu, ratio, value

__all__ = ["lines", "page", "targets"]

WAITING = 1_000_000
"""Messages that are to wait in the work about them."""
HEAD = """# Benchmarks

Made by `make bench`; do not edit. All of it is from one run, {rounds}, on {date}.

{machine}. RabbitMQ {rabbitmq}, {broker}, everything on this one machine: clients, servers and the broker share its cores.
{others}

![Messages a second, by work and peer](benchmarks.svg)

## What was to be reached

Ratios within this run: the median of the ratios of each round.
"""
READ = """## How to read it

- **One run, in turns.** In each round everybody has a turn of a second or so, one after another (A B C A B C …), so that
  a busy minute of the machine meets all of them. A rate is the median of the rounds, with the lowest and highest
  beside it. A ratio is the median of the ratios within each round, and so is not the quotient of two medians.
- **CPU µs** is processor time for each message, by the processes' own CPU clocks (what `getrusage` adds up). It hardly
  depends on who else is busy on the machine; rates do. The broker's is that of the node's process.
- **The same work.** A JSON body of 300 bytes, one pydantic model, validated by the receiver of each message, requests
  and replies; the sender builds it through the model, too. A reply that is wrong or missing fails the run, and so does a
  message that is consumed twice or not at all. Client and server are processes of their own, warm before round 1.
- **Latency** at a share of the peak is measured in an open loop: requests leave at fixed times, however long the answers
  take, and each one's latency counts from when it was due. Slow answers cannot slow the questions down (no coordinated
  omission). The rate is a share of the peak of the one that is measured, taken a few seconds before.
- **Memory** is the most resident memory of a fresh consumer process: once while messages pass an empty queue, once while it
  consumes from a queue in which our publisher left the others. The peers read the same messages of the same queue.

## What it does not measure

A network, a cluster, TLS, other message sizes, handlers that do something, brokers under an alarm, or days of running. The
peers can be tuned in ways that we do not know; each has the settings named above. The C programs check nothing and decode
nothing: they show what the broker leaves, and nobody should write services like that.

The figures of each round: [benchmarks.json](benchmarks.json). Again: `make bench`, or `make bench ARGS=--quick` (two minutes;
writes no page), or `make bench ARGS="--only rpc"`.
"""


def page(run: Mapping[str, Any]) -> str:
    """The whole page from what `benchmarks.json` holds."""
    machine, works, names = run["machine"], run["works"], run["names"]
    described = (
        f"{machine['processor']}, {machine['cores']} cores, {machine['memory_gb']} GB, {machine['system']}, Python {machine['python']}"
    )
    head = HEAD.format(
        rounds=f"{run['rounds']} rounds of the headline works",
        date=run["date"],
        machine=described,
        rabbitmq=run["rabbitmq"],
        broker=run["broker"],
        others=others(works),
    )
    parts = [head, *targets(works), "", *sections(works, names), READ.rstrip(), "", *versions(run), *notes(run)]
    return "\n".join(parts).rstrip() + "\n"


def others(works: Works) -> str:
    """How quiet the machine was."""
    seen = [sample["others"] for by in works.values() for rounds in by.values() for sample in rounds if "others" in sample]
    if not seen:
        return "How busy the machine was with others is not known."
    return (
        f"Other programs on it used {max(0.0, statistics.median(seen)):.1f} cores meanwhile (median of the rounds; "
        f"at most {max(seen):.1f}): rates would be higher on a machine that does nothing else."
    )


def targets(works: Works) -> Iterator[str]:
    """The table of what was to be reached, and whether it was."""
    yield from ("| work, full stack on | to reach | measured | rounds, min–max | |", "|---|---|---|---|---|")
    for target in TARGETS:
        found = target.measured(works)
        verdict = {True: "reached", False: "**not reached**", None: "not measured"}[target.reached(works)]
        bound = f"at {'most' if target.most else 'least'} {target.bound:g}"
        around = ratio(works, target.work, target.peer, target.against, target.metric) if target.against else None
        fewer = "" if target.against else fewer_waited(works)
        yield f"| {target.title}{fewer} | {bound} | {'–' if found is None else f'{found:.2f}'} | {low_high(around, 2)} | {verdict} |"


def fewer_waited(works: Works) -> str:
    """Where the filling took too long, how many messages there were."""
    there = value(works, "waiting1000000", OURS, "waiting")
    return f" (here {there.median:,.0f})" if there and there.median < WAITING else ""


def sections(works: Works, names: Mapping[str, str]) -> Iterator[str]:
    """Everything that was measured."""
    for group, title in GROUPS.items():
        measured = [work for work in works if work.startswith(group)]
        if not measured:
            continue
        yield from (f"## {title}", "")
        for work in measured:
            yield from (*TABLES.get(group, messages)(works, work, names), "")
        yield from conditions(works, measured[0], names)


def messages(works: Works, work: str, names: Mapping[str, str]) -> Iterator[str]:
    """Rates."""
    measured = cpu(works, work, next(iter(works[work]), ""))
    paired = any("p50" in sample for rounds in works[work].values() for sample in rounds)
    latency = ("p50 ms | p99 ms |", "---|---|") if paired else ("", "")
    yield f"### {TITLES[work]}"
    yield ""
    yield f"| | a second | min–max | ours ÷ it | {latency[0]} CPU µs: {' / '.join(measured)} |"
    yield f"|---|---|---|---|{latency[1]}---|"
    for peer in works[work]:
        rate, against = value(works, work, peer), ratio(works, work, OURS, peer)
        if rate is None:
            continue
        beside = "" if peer == OURS or against is None else f"{against.median:.2f}"
        percentiles = [number(value(works, work, peer, name), 2) for name in ("p50", "p99")] if paired else []
        cells = [names[peer], f"{rate.median:,.0f}", low_high(rate), beside, *percentiles, used(works, work, peer)]
        yield f"| {' | '.join(cells)} |"


def percentiles(works: Works, work: str, names: Mapping[str, str]) -> Iterator[str]:
    """Latency at a fixed rate."""
    yield from (f"### {TITLES[work]}", "", "| | calls a second | p50 ms | p99 ms | p99.9 ms |", "|---|---|---|---|---|")
    for peer in works[work]:
        cells = [number(value(works, work, peer, name), 2) for name in ("p50", "p99", "p999")]
        yield f"| {names[peer]} | {number(value(works, work, peer), 0)} | {' | '.join(cells)} |"


def memory(works: Works, work: str, names: Mapping[str, str]) -> Iterator[str]:
    """Memory and cost, with nothing waiting and with a million."""
    waiting = next((sample["waiting"] for rounds in works[work].values() for sample in rounds if "waiting" in sample), 0)
    yield f"### {TITLES[work] if not waiting else f'Consume with ack, {waiting:,} wait'}"
    yield ""
    yield "| | most resident MB | MB after a tenth of the time | a second | CPU µs: consumer / broker |"
    yield "|---|---|---|---|---|"
    for peer in works[work]:
        cells = [number(value(works, work, peer, name), digits) for name, digits in (("rss", 1), ("rss_early", 1), ("rate", 0))]
        yield f"| {names[peer]} | {' | '.join(cells)} | {used(works, work, peer)} |"


GROUPS = {
    "rpc1": "Requests",
    "publish": "Publishing",
    "consume": "Consuming",
    "fanout": "Events",
    "jobs": "Jobs",
    "rpc-workers": "Worker processes on one queue",
    "nap-workers": "Worker processes on one queue, with handlers that wait",
    "latency": "Latency below the peak",
    "waiting": "Memory and cost while messages wait",
}
"""Sections, by how the names of their works begin."""
TABLES: Mapping[str, Callable[[Works, str, Mapping[str, str]], Iterator[str]]] = {"latency": percentiles, "waiting": memory}


def conditions(works: Works, work: str, names: Mapping[str, str]) -> Iterator[str]:
    """What is switched on."""
    yield from ("Switched on:", "")
    for peer in works[work]:
        yield f"- {names[peer]}: {condition(work, peer)}"
    yield ""


def used(works: Works, work: str, peer: str) -> str:
    """By side, and together."""
    found = cpu(works, work, peer)
    return f"{' / '.join(f'{each:,.0f}' for each in found.values())} = {sum(found.values()):,.0f}" if found else "–"


def number(found: Spread | None, digits: int) -> str:
    """A median."""
    return "–" if found is None else f"{found.median:,.{digits}f}"


def low_high(found: Spread | None, digits: int = 0) -> str:
    """A range."""
    return "–" if found is None else f"{found.low:,.{digits}f}–{found.high:,.{digits}f}"


def versions(run: Mapping[str, Any]) -> Iterator[str]:
    """Who was there."""
    yield from ("## Versions", "")
    yield from (f"- {title}: {written}" for title, written in run["versions"].items())
    yield f"- pydantic {run['machine']['pydantic']} in all of them"
    yield ""


def notes(run: Mapping[str, Any]) -> Iterator[str]:
    """What was noticed, and who was missing."""
    found = [*run["notes"], *(f"{name} was not measured: {why}" for name, why in run["absent"].items())]
    if found:
        yield from ("## Notes of this run", "", *(f"- {note}" for note in found), "")


def lines(works: Works, work: str, peers: Iterable[str], names: Mapping[str, str]) -> Iterator[str]:
    """For a terminal."""
    for peer in peers:
        rate, against = value(works, work, peer), ratio(works, work, OURS, peer)
        beside = f"ours x{against.median:.2f}" if against and peer != OURS else ""
        latency = " ".join(f"{name} {found.median:.2f}" for name in ("p50", "p99", "p999") if (found := value(works, work, peer, name)))
        memory = f"rss {found.median:.1f} MB" if (found := value(works, work, peer, "rss")) else ""
        sides = ", ".join(f"{side} {each:.0f}" for side, each in cpu(works, work, peer).items())
        yield f"{names[peer]:22} {number(rate, 0):>8}/s  {beside:12} {latency} {memory} CPU us: {sides}"
