"""Verdicts as rows of plain values, and rows as tables for a terminal or a document."""

from collections.abc import Iterable, Mapping, Sequence
from typing import TypedDict

from tests.chaos.campaign import Played

__all__ = ["PROPERTY", "Row", "markdown", "row", "table", "whole"]

PROPERTY = "ledger"
"""Name of the test property that passes a row to the summary of the run."""


class Row(TypedDict):
    """The figures of one campaign."""

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


HEADINGS = (
    "",
    "messages",
    "faults",
    "failed",
    "unknown",
    "dead",
    "lost",
    "unexpected",
    "delivered again",
    "done again",
    "gap s",
    "seed",
)


def row(played: Played) -> Row:
    """Return the row of a campaign."""
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
    """Return lines for a terminal: the rows, their sum, and the recovery times."""
    found = sorted(rows, key=lambda each: each["fault"])
    cells = [
        HEADINGS,
        *(_cells(each["fault"], each) for each in found),
        _cells("all", whole(found), seed=""),
    ]
    widths = [max(len(line[column]) for line in cells) for column in range(len(HEADINGS))]
    lines = [
        "  ".join(
            _aligned(text, width, place)
            for place, (text, width) in enumerate(zip(line, widths, strict=True))
        )
        for line in cells
    ]
    return [*lines, *recovery(found)]


def markdown(rows: Sequence[Row], titles: Mapping[str, str]) -> list[str]:
    """Return the lines of a Markdown table."""
    body = [_cells(titles.get(each["fault"], each["fault"]), each) for each in rows]
    if len(rows) > 1:
        body.append(_cells("**all**", whole(rows), seed=""))
    rule = ("---", *("---:" for _ in HEADINGS[1:]))
    return [f"| {' | '.join(line)} |" for line in (HEADINGS, rule, *body)]


def recovery(rows: Iterable[Row]) -> list[str]:
    """Return the times from the broker's return to the first confirm and the first effect."""
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
    middle, last = (
        ordered[len(ordered) // 2],
        ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))],
    )
    return f"median {middle:.2f} s, p99 {last:.2f} s ({len(ordered)} times)"


def _cells(name: str, each: Row, *, seed: str | None = None) -> tuple[str, ...]:
    again = (
        f"{each['duplicate_effects']} of at most {each['possible']}"
        if each["possible"]
        else f"{each['duplicate_effects']}"
    )
    counts = (
        each["messages"],
        each["faults"],
        each["failed"],
        each["unknown"],
        each["dead"],
        each["lost"],
        each["unexpected"],
    )
    numbers = (f"{count:,}" for count in (*counts, each["duplicate_deliveries"]))
    return name, *numbers, again, f"{each['gap']:.1f}", str(each["seed"]) if seed is None else seed


def _aligned(text: str, width: int, place: int) -> str:
    return text.rjust(width) if place else text.ljust(width)


def whole(rows: Sequence[Row]) -> Row:
    """Return the sum of the rows, with the name and seed of the first and the longest gap."""
    return Row(
        party=rows[0]["party"],
        fault=rows[0]["fault"],
        messages=sum(each["messages"] for each in rows),
        faults=sum(each["faults"] for each in rows),
        failed=sum(each["failed"] for each in rows),
        unknown=sum(each["unknown"] for each in rows),
        dead=sum(each["dead"] for each in rows),
        lost=sum(each["lost"] for each in rows),
        unexpected=sum(each["unexpected"] for each in rows),
        duplicate_deliveries=sum(each["duplicate_deliveries"] for each in rows),
        duplicate_effects=sum(each["duplicate_effects"] for each in rows),
        possible=sum(each["possible"] for each in rows),
        gap=max(each["gap"] for each in rows),
        confirms=[seconds for each in rows for seconds in each["confirms"]],
        effects=[seconds for each in rows for seconds in each["effects"]],
        seed=rows[0]["seed"],
        seconds=round(sum(each["seconds"] for each in rows), 1),
    )
