"""The ledger's verdicts as rows of plain values, and rows as a table for a terminal or a document."""

from collections.abc import Iterable, Mapping, Sequence
from typing import TypedDict

from tests.chaos.campaign import Played

__all__ = ["PROPERTY", "Row", "markdown", "row", "table"]

PROPERTY = "ledger"
"""The name under which a test hands its row to the end of the run."""


class Row(TypedDict):
    """One campaign."""

    party: str
    fault: str
    messages: int
    faults: int
    failed: int
    unknown: int
    dead: int
    lost: int
    unexpected: int
    duplicate_deliveries: int
    duplicate_effects: int
    possible: int
    gap: float
    confirms: list[float]
    effects: list[float]
    seed: int
    seconds: float


HEADINGS = ("", "messages", "faults", "failed", "unknown", "dead", "lost", "unexpected", "delivered again", "done again", "gap s", "seed")


def row(played: Played) -> Row:
    """What is kept of it."""
    verdict = played.verdict
    return Row(
        party=played.party,
        fault=played.fault,
        messages=verdict.messages,
        faults=played.faults,
        failed=verdict.failed,
        unknown=verdict.unknown,
        dead=verdict.dead,
        lost=len(verdict.lost),
        unexpected=len(verdict.unexpected),
        duplicate_deliveries=verdict.duplicate_deliveries,
        duplicate_effects=verdict.duplicate_effects,
        possible=played.in_flight,
        gap=round(verdict.gap, 2),
        confirms=[round(seconds, 3) for seconds in played.confirms],
        effects=[round(seconds, 3) for seconds in played.effects],
        seed=played.size.seed,
        seconds=round(played.seconds, 1),
    )


def table(rows: Iterable[Row]) -> list[str]:
    """Lines for a terminal: one each, their sum, and how soon the broker's return was felt."""
    found = sorted(rows, key=lambda each: each["fault"])
    cells = [HEADINGS, *(_cells(each["fault"], each) for each in found), _cells("all", _sum(found), seed="")]
    widths = [max(len(line[column]) for line in cells) for column in range(len(HEADINGS))]
    lines = [
        "  ".join(_aligned(text, width, place) for place, (text, width) in enumerate(zip(line, widths, strict=True))) for line in cells
    ]
    return [*lines, *recovery(found)]


def markdown(rows: Sequence[Row], titles: Mapping[str, str]) -> list[str]:
    """Lines of a table in a document."""
    body = [_cells(titles.get(each["fault"], each["fault"]), each) for each in rows]
    if len(rows) > 1:
        body.append(_cells("**all**", _sum(rows), seed=""))
    rule = ("---", *("---:" for _ in HEADINGS[1:]))
    return [f"| {' | '.join(line)} |" for line in (HEADINGS, rule, *body)]


def recovery(rows: Iterable[Row]) -> list[str]:
    """From the moment in which the broker took connections, or publishes, again."""
    found = [*rows]
    confirms = sorted(seconds for each in found for seconds in each["confirms"])
    effects = sorted(seconds for each in found for seconds in each["effects"])
    if not confirms or not effects:
        return []
    return [
        f"first confirm after the broker's return: {_spread(confirms)}",
        f"first effect after the broker's return: {_spread(effects)}",
    ]


def _spread(ordered: Sequence[float]) -> str:
    middle, last = ordered[len(ordered) // 2], ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))]
    return f"median {middle:.2f} s, p99 {last:.2f} s ({len(ordered)} times)"


def _cells(name: str, each: Row, *, seed: str | None = None) -> tuple[str, ...]:
    again = f"{each['duplicate_effects']} of at most {each['possible']}" if each["possible"] else f"{each['duplicate_effects']}"
    counts = (each["messages"], each["faults"], each["failed"], each["unknown"], each["dead"], each["lost"], each["unexpected"])
    numbers = (f"{count:,}" for count in (*counts, each["duplicate_deliveries"]))
    return name, *numbers, again, f"{each['gap']:.1f}", str(each["seed"]) if seed is None else seed


def _aligned(text: str, width: int, place: int) -> str:
    return text.rjust(width) if place else text.ljust(width)


def _sum(rows: Sequence[Row]) -> Row:
    """Of all of them; the longest gap."""
    whole = Row(
        party="", fault="", messages=0, faults=0, failed=0, unknown=0, dead=0, lost=0, unexpected=0, duplicate_deliveries=0,
        duplicate_effects=0, possible=0, gap=max((each["gap"] for each in rows), default=0.0), confirms=[], effects=[], seed=0, seconds=0,
    )  # fmt: skip
    for each in rows:
        whole["messages"] += each["messages"]
        whole["faults"] += each["faults"]
        whole["failed"] += each["failed"]
        whole["unknown"] += each["unknown"]
        whole["dead"] += each["dead"]
        whole["lost"] += each["lost"]
        whole["unexpected"] += each["unexpected"]
        whole["duplicate_deliveries"] += each["duplicate_deliveries"]
        whole["duplicate_effects"] += each["duplicate_effects"]
        whole["possible"] += each["possible"]
        whole["seconds"] += each["seconds"]
    return whole
