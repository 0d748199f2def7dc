"""Tables of dead letters, at the widths of a terminal."""

import io
import json
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from bus.cli.dead.export_file import ExportReader, write
from bus.cli.dead.table import details, show_table, to_json
from bus.messaging.fault_record import FaultRecord
from bus.operations.dead_letters import DeadLetter
from tests.unit.fakes import NOW, envelope

MS = int(NOW * 1000)
ID = "1bca7969-65da-4741-9053-a6d7357cb8dc"
WHERE = "billing/service.py:43 quote"
FRAMES = ("bus/runtime/router.py:290 Router.__call__", WHERE)
RECORD = FaultRecord(
    by="worker", code="internal", where=WHERE, frames=FRAMES, last_at=MS, attempts=5, queue="q"
)
LETTER = DeadLetter(
    envelope=envelope(
        "billing.quote.v1",
        role="job",
        id=ID,
        correlation_id=ID,
        headers={"dead-code": "internal", "dead-where": WHERE, "dead-frames": "\n".join(FRAMES)},
    ),
    record=RECORD,
    dead_queue="q.dead",
)
UNLOCATED = replace(LETTER, record=replace(RECORD, where=None, frames=()))


def shown(*letters: DeadLetter, width: int) -> list[str]:
    console = Console(file=io.StringIO(), width=width)
    show_table(letters, console)
    assert isinstance(console.file, io.StringIO)
    return [line.rstrip() for line in console.file.getvalue().splitlines()]


def test_a_list_on_80_columns_names_the_location_on_a_line_of_its_own() -> None:
    lines = shown(LETTER, UNLOCATED, width=80)
    assert lines[4:5] == [f"at {WHERE}"]
    assert len(lines) == 2 + 3 + 2
    assert all(len(line) <= 80 for line in lines)


@pytest.mark.parametrize("width", [190, 1000])
def test_a_wide_list_has_a_column_for_the_location(width: int) -> None:
    header, first, second = shown(LETTER, UNLOCATED, width=width)
    assert header.endswith("  where")
    assert first.endswith(f"{ID}  {ID}  {WHERE}")
    assert second.endswith(f"{ID}  {ID}  -")


def test_a_list_without_a_location_has_no_column_for_it() -> None:
    header, row = shown(UNLOCATED, width=140)
    assert header.endswith("correlation id")
    assert row.endswith(f"{ID}  {ID}")


def test_the_details_of_a_dead_letter_name_the_location_and_all_frames() -> None:
    console = Console(file=io.StringIO(), width=80)
    console.print(details(LETTER, now=MS))
    assert isinstance(console.file, io.StringIO)
    lines = [line.strip() for line in console.file.getvalue().splitlines()]
    assert f"where           {WHERE}" in lines
    assert lines[lines.index(f"frames          {FRAMES[0]}") + 1] == FRAMES[1]


def test_the_json_of_a_dead_letter_has_the_location_and_all_frames() -> None:
    record = json.loads(json.dumps(to_json(LETTER)))["record"]
    assert (record["where"], record["frames"]) == (WHERE, [*FRAMES])


def test_an_export_can_be_read_by_an_older_version_and_keeps_the_location(
    tmp_path: Path,
) -> None:
    file = tmp_path / "letters.jsonl"
    write(file, [LETTER])
    line = json.loads(file.read_text())
    assert not {"where", "frames"} & line["record"].keys()
    with ExportReader(file) as letters:
        (imported,) = (letter.message for letter in letters)
    assert imported.headers["dead-where"] == WHERE


def test_an_export_of_a_later_version_can_be_read(tmp_path: Path) -> None:
    file = tmp_path / "letters.jsonl"
    write(file, [LETTER])
    line = json.loads(file.read_text())
    line["record"]["later"] = 1
    file.write_text(json.dumps(line))
    with ExportReader(file) as letters:
        (imported,) = (letter.message for letter in letters)
    assert imported.id == ID
