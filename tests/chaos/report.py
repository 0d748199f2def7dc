"""What long runs have found, part by part, in a file that is committed; a run that ends early goes on where it was."""

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypedDict, cast

from tests.chaos.table import Row, whole
from tests.integration.command import ROOT

__all__ = ["FIGURES", "Figures", "Part", "added", "by_fault", "load", "save"]

FIGURES = ROOT / "docs" / "reliability.json"


class Part(Row):
    """A campaign's row, and which part of its class it was."""

    part: int
    date: str
    rabbitmq: str


class Figures(TypedDict):
    """Everything that `docs/reliability.json` holds."""

    parts: list[Part]
    exams: dict[str, dict[str, Any]]
    """What is no campaign: by its name, figures by theirs, and the date."""


def load(path: Path = FIGURES) -> Figures:
    """What was found so far."""
    if not path.exists():
        return Figures(parts=[], exams={})
    return cast("Figures", json.loads(path.read_text(encoding="utf-8")))


def save(figures: Figures, path: Path = FIGURES) -> None:
    """Write it whole: a run that is killed meanwhile leaves the old file."""
    written = path.with_suffix(".new")
    lines = [json.dumps(part) for part in figures["parts"]]
    exams = [f"{json.dumps(name)}: {json.dumps(exam)}" for name, exam in sorted(figures["exams"].items())]
    text = '{"parts": [\n' + ",\n".join(lines) + '\n],\n"exams": {\n' + ",\n".join(exams) + "\n}}\n"
    written.write_text(text, encoding="utf-8")
    written.replace(path)


def added(figures: Figures, row: Row, *, part: int, rabbitmq: str) -> None:
    """Append one part."""
    today = datetime.now(tz=UTC).date().isoformat()
    figures["parts"].append(Part(**row, part=part, date=today, rabbitmq=rabbitmq))


def by_fault(figures: Figures, party: str) -> Mapping[str, Row]:
    """The parts of each class of a party, added up."""
    parts = [part for part in figures["parts"] if part["party"] == party]
    names = dict.fromkeys(part["fault"] for part in parts)
    return {name: whole([part for part in parts if part["fault"] == name]) for name in names}
