"""The page docs/benchmarks.md, generated from the figures of one run."""

import statistics
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from benchmarks.conditions import TITLES, condition
from benchmarks.page_text import HEAD, READ
from benchmarks.peers import ON_POSTGRES, OURS
from benchmarks.report import TARGETS, Spread, Works, cpu, ratio, value

__all__ = ["lines", "origin", "page", "targets"]

WAITING = 1_000_000
"""Messages that should wait in the workload `waiting1000000`."""


def page(run: Mapping[str, Any]) -> str:
    """Return the whole page for the content of `benchmarks.json`."""
    machine, works, names = run["machine"], run["works"], run["names"]
    described = (
        f"{machine['processor']}, {machine['cores']} cores, {machine['memory_gb']} GB, "
        f"{machine['system']}, Python {machine['python']}"
    )
    head = HEAD.format(
        rounds=f"{run['rounds']} rounds of the headline workloads",
        date=run["date"],
        machine=described,
        rabbitmq=run["rabbitmq"],
        broker=run["broker"],
        others=others(works),
    )
    parts = [
        head,
        *targets(works),
        "",
        *sections(works, names, run.get("added", {})),
        READ.rstrip(),
        "",
        *versions(run),
        *notes(run),
    ]
    return "\n".join(parts).rstrip() + "\n"


def others(works: Works) -> str:
    """Return a sentence about the load of other programs."""
    seen = [
        sample["others"]
        for by in works.values()
        for rounds in by.values()
        for sample in rounds
        if "others" in sample
    ]
    if not seen:
        return "The load of other programs on the machine is unknown."
    return (
        f"Other programs used {max(0.0, statistics.median(seen)):.1f} cores in the median round, "
        f"and at most {max(seen):.1f}.\nRates would be higher on a machine that does nothing else."
    )


def origin(run: Mapping[str, Any]) -> str:
    """Return a paragraph about a run of which the figures were added to an earlier run."""
    return (
        f"These figures are from a run of their own on {run['date']}, with RabbitMQ "
        f"{run['rabbitmq']}.\n"
        f"Trunkline: {run['versions'].get('Trunkline', 'of an unknown version')}.\n"
        f"{others(run['works'])}"
    )


def targets(works: Works) -> Iterator[str]:
    """Yield the rows of the table of targets, with the results."""
    yield "| workload, full stack | target | measured | min–max | |"
    yield "|---|---|---|---|---|"
    for target in TARGETS:
        found = target.measured(works)
        verdict = {True: "reached", False: "**not reached**", None: "not measured"}[
            target.reached(works)
        ]
        bound = f"at {'most' if target.most else 'least'} {target.bound:g}"
        around = (
            ratio(works, target.work, target.peer, target.against, target.metric)
            if target.against
            else None
        )
        fewer = "" if target.against else fewer_waited(works)
        figure = "–" if found is None else f"{found:.2f}"
        yield (
            f"| {target.title}{fewer} | {bound} | {figure} | {low_high(around, 2)} | {verdict} |"
        )


def fewer_waited(works: Works) -> str:
    """Return the number of waiting messages, if filling the queue took too long."""
    there = value(works, "waiting1000000", OURS, "waiting")
    return f" (in this run {there.median:,.0f})" if there and there.median < WAITING else ""


def sections(
    works: Works, names: Mapping[str, str], added: Mapping[str, str] | None = None
) -> Iterator[str]:
    """Yield a section for each group of workloads that was measured.

    Args:
        works: The samples.
        names: The titles of the peers.
        added: A text about the run of each workload that was measured later than the others.
    """
    for group, title in GROUPS.items():
        measured = [work for work in works if work.startswith(group)]
        if not measured:
            continue
        yield from (f"## {title}", "")
        if added and measured[0] in added:
            yield from (added[measured[0]], "")
        for work in measured:
            yield from (*TABLES.get(group, messages)(works, work, names), "")
        yield from conditions(works, measured[0], names)


def ours(work: str) -> str:
    """Return the variant of the bus that a workload compares with the peers."""
    return ON_POSTGRES if work.startswith("durable") else OURS


def messages(works: Works, work: str, names: Mapping[str, str]) -> Iterator[str]:
    """Yield a table of rates."""
    measured = cpu(works, work, next(iter(works[work]), ""))
    paired = any("p50" in sample for rounds in works[work].values() for sample in rounds)
    latency = ("p50 ms | p99 ms |", "---|---|") if paired else ("", "")
    yield f"### {TITLES[work]}"
    yield ""
    side = " / ".join(measured)
    yield f"| | per second | min–max | ours ÷ peer | {latency[0]} CPU µs: {side} |"
    yield f"|---|---|---|---|{latency[1]}---|"
    for peer in works[work]:
        rate, against = value(works, work, peer), ratio(works, work, ours(work), peer)
        if rate is None:
            continue
        beside = "" if peer == ours(work) or against is None else f"{against.median:.2f}"
        percentiles = (
            [number(value(works, work, peer, name), 2) for name in ("p50", "p99")] if paired else []
        )
        cells = [
            names[peer],
            f"{rate.median:,.0f}",
            low_high(rate),
            beside,
            *percentiles,
            used(works, work, peer),
        ]
        yield f"| {' | '.join(cells)} |"


def durable(works: Works, work: str, names: Mapping[str, str]) -> Iterator[str]:
    """Yield a table of rates, or of latencies, of durable jobs."""
    return (percentiles if work == "durable-start" else messages)(works, work, names)


def percentiles(works: Works, work: str, names: Mapping[str, str]) -> Iterator[str]:
    """Yield a table of latencies at a fixed rate."""
    yield from (f"### {TITLES[work]}", "")
    yield "| | per second | p50 ms | p99 ms | p99.9 ms |"
    yield "|---|---|---|---|---|"
    for peer in works[work]:
        cells = [number(value(works, work, peer, name), 2) for name in ("p50", "p99", "p999")]
        yield f"| {names[peer]} | {number(value(works, work, peer), 0)} | {' | '.join(cells)} |"


def memory(works: Works, work: str, names: Mapping[str, str]) -> Iterator[str]:
    """Yield a table of memory and cost, with an empty queue or with a million messages."""
    waiting = next(
        (
            sample["waiting"]
            for rounds in works[work].values()
            for sample in rounds
            if "waiting" in sample
        ),
        0,
    )
    yield f"### {TITLES[work] if not waiting else f'Consume with ack, {waiting:,} wait'}"
    yield ""
    sides = "consumer / broker"
    yield f"| | peak resident MB | MB after 10 % of the time | per second | CPU µs: {sides} |"
    yield "|---|---|---|---|---|"
    for peer in works[work]:
        cells = [
            number(value(works, work, peer, name), digits)
            for name, digits in (("rss", 1), ("rss_early", 1), ("rate", 0))
        ]
        yield f"| {names[peer]} | {' | '.join(cells)} | {used(works, work, peer)} |"


GROUPS = {
    "rpc1": "Requests",
    "publish": "Publishing",
    "consume": "Consuming",
    "fanout": "Events",
    "jobs": "Jobs",
    "durable": "Durable jobs",
    "rpc-workers": "Worker processes on one queue",
    "nap-workers": "Worker processes on one queue, with handlers that wait",
    "latency": "Latency below the peak",
    "waiting": "Memory and cost while messages wait",
}
"""Titles of sections, by the prefix of their workloads' names."""
TABLES: Mapping[str, Callable[[Works, str, Mapping[str, str]], Iterator[str]]] = {
    "durable": durable,
    "latency": percentiles,
    "waiting": memory,
}


def conditions(works: Works, work: str, names: Mapping[str, str]) -> Iterator[str]:
    """Yield the configuration of each peer."""
    yield from ("Configuration:", "")
    for peer in works[work]:
        yield f"- {names[peer]}: {condition(work, peer)}"
    yield ""


def used(works: Works, work: str, peer: str) -> str:
    """Return the CPU microseconds by side, and their sum."""
    found = cpu(works, work, peer)
    return (
        f"{' / '.join(f'{each:,.0f}' for each in found.values())} = {sum(found.values()):,.0f}"
        if found
        else "–"
    )


def number(found: Spread | None, digits: int) -> str:
    """Return a median as text."""
    return "–" if found is None else f"{found.median:,.{digits}f}"


def low_high(found: Spread | None, digits: int = 0) -> str:
    """Return a range as text."""
    return "–" if found is None else f"{found.low:,.{digits}f}–{found.high:,.{digits}f}"


def versions(run: Mapping[str, Any]) -> Iterator[str]:
    """Yield the section about versions."""
    yield from ("## Versions", "")
    yield from (f"- {title}: {written}" for title, written in run["versions"].items())
    yield f"- all of them: pydantic {run['machine']['pydantic']}"
    yield ""


def notes(run: Mapping[str, Any]) -> Iterator[str]:
    """Yield the section of notes and missing peers, if there are any."""
    found = [
        *run["notes"],
        *(f"{name} was not measured: {why}" for name, why in run["absent"].items()),
    ]
    if found:
        yield from ("## Notes on this run", "", *(f"- {note}" for note in found), "")


def lines(works: Works, work: str, peers: Iterable[str], names: Mapping[str, str]) -> Iterator[str]:
    """Yield the results of a workload, a line for each peer, for a terminal."""
    for peer in peers:
        rate, against = value(works, work, peer), ratio(works, work, ours(work), peer)
        beside = f"ours x{against.median:.2f}" if against and peer != ours(work) else ""
        latency = " ".join(
            f"{name} {found.median:.2f}"
            for name in ("p50", "p99", "p999")
            if (found := value(works, work, peer, name))
        )
        memory = f"rss {found.median:.1f} MB" if (found := value(works, work, peer, "rss")) else ""
        sides = ", ".join(f"{side} {each:.0f}" for side, each in cpu(works, work, peer).items())
        yield (
            f"{names[peer]:22} {number(rate, 0):>8}/s  {beside:12} {latency} {memory} "
            f"CPU us: {sides}"
        )
