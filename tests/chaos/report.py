"""What long runs have found, part by part, in a file that is committed; a run that ends early goes on where it was."""

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
    """A campaign's row, and which part of its class it was."""

    part: int
    date: str
    rabbitmq: str


class Tried(TypedDict):
    """A broken variant, and what its test made of it."""

    noticed: bool
    said: str
    """How the test failed, in its own words."""
    date: str


class Figures(TypedDict):
    """Everything that `docs/reliability.json` holds."""

    parts: list[Part]
    exams: dict[str, dict[str, Any]]
    """What is no campaign: by its name, figures by theirs."""
    sabotages: dict[str, Tried]


def load(path: Path = FIGURES) -> Figures:
    """What was found so far."""
    if not path.exists():
        return Figures(parts=[], exams={}, sabotages={})
    return cast("Figures", {"sabotages": {}, **json.loads(path.read_text(encoding="utf-8"))})


def save(figures: Figures, path: Path = FIGURES) -> None:
    """Write it whole: a run that is killed meanwhile leaves the old file."""
    written = path.with_suffix(".new")
    parts = ",\n".join(json.dumps(part) for part in figures["parts"])
    text = f'{{"parts": [\n{parts}\n],\n"exams": {_a_line_each(figures["exams"])},\n"sabotages": {_a_line_each(figures["sabotages"])}}}\n'
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
    """Append one part."""
    figures["parts"].append(Part(**row, part=part, date=today(), rabbitmq=rabbitmq))


def today() -> str:
    """The date of what is found now."""
    return datetime.now(tz=UTC).date().isoformat()


def by_fault(figures: Figures, party: str) -> Mapping[str, Row]:
    """The parts of each class of a party, added up."""
    parts = [part for part in figures["parts"] if part["party"] == party]
    names = dict.fromkeys(part["fault"] for part in parts)
    return {name: whole([part for part in parts if part["fault"] == name]) for name in names}
