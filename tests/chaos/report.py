"""Figures of long runs, part by part, in a file of the repository.

An interrupted run continues after its last finished part.
"""

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypedDict, cast

from tests.chaos.table import Row, whole
from tests.integration.command import ROOT

__all__ = ["FIGURES", "Figures", "Part", "Tried", "added", "by_fault", "load", "save", "today"]

FIGURES = ROOT / "docs" / "reliability.json"


class Part(Row):
    """A campaign's row, with the number of its part."""

    part: int
    date: str
    rabbitmq: str


class Tried(TypedDict):
    """The result of the test for a broken variant."""

    noticed: bool
    said: str
    """Error message of the failed test."""
    date: str


class Figures(TypedDict):
    """The content of `docs/reliability.json`."""

    parts: list[Part]
    exams: dict[str, dict[str, Any]]
    """Figures of the exams by name of the exam and of the figure."""
    sabotages: dict[str, Tried]


def load(path: Path = FIGURES) -> Figures:
    """Return the figures so far."""
    if not path.exists():
        return Figures(parts=[], exams={}, sabotages={})
    return cast("Figures", {"sabotages": {}, **json.loads(path.read_text(encoding="utf-8"))})


def save(figures: Figures, path: Path = FIGURES) -> None:
    """Write the file and replace the old one, which stays if the run is killed."""
    written = path.with_suffix(".new")
    parts = ",\n".join(json.dumps(part) for part in figures["parts"])
    text = (
        f'{{"parts": [\n{parts}\n],\n'
        f'"exams": {_a_line_each(figures["exams"])},\n'
        f'"sabotages": {_a_line_each(figures["sabotages"])}}}\n'
    )
    written.write_text(text, encoding="utf-8")
    written.replace(path)


def _a_line_each(found: Mapping[str, object]) -> str:
    return (
        "{\n"
        + ",\n".join(
            f"{json.dumps(name)}: {json.dumps(each)}" for name, each in sorted(found.items())
        )
        + "\n}"
    )


def added(figures: Figures, row: Row, *, part: int, rabbitmq: str) -> None:
    """Append one part to the figures."""
    figures["parts"].append(Part(**row, part=part, date=today(), rabbitmq=rabbitmq))


def today() -> str:
    """Return today's date in UTC."""
    return datetime.now(tz=UTC).date().isoformat()


def by_fault(figures: Figures, party: str) -> Mapping[str, Row]:
    """Return the sum of the parts for each class of a party."""
    parts = [part for part in figures["parts"] if part["party"] == party]
    names = dict.fromkeys(part["fault"] for part in parts)
    return {name: whole([part for part in parts if part["fault"] == name]) for name in names}
