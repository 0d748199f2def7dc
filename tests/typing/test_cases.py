import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CASES = Path(__file__).with_name("cases.py")
MARK = "# type: ignore["


EVERYTHING = """\
from bus import *

@contract("typing.star", version=1)
class Star(Request[None]):
    number: int

assert_number: int = Star(number=1).number
"""


def mypy(*files: Path) -> str:
    """Return the report of `mypy --strict` with the project's settings."""
    command = [
        sys.executable,
        "-m",
        "mypy",
        "--strict",
        "--no-error-summary",
        "--show-error-codes",
        "--no-pretty",
        *map(str, files),
    ]
    return subprocess.run(
        command, capture_output=True, text=True, check=False, cwd=ROOT, timeout=170
    ).stdout


def marks(text: str) -> set[tuple[int, str]]:
    """Return line and code of every marked error."""
    lines = (
        (number, line)
        for number, line in enumerate(text.splitlines(), 1)
        if MARK in line and "`" not in line
    )
    return {
        (number, code.strip())
        for number, line in lines
        for code in line.partition(MARK)[2].rstrip("]").split(",")
    }


def found(report: str, name: str) -> set[tuple[int, str]]:
    """Return line and code of every reported error."""
    errors = (line for line in report.splitlines() if f"{name}:" in line and ": error: " in line)
    return {(int(line.split(":")[1]), line.rpartition("[")[2].rstrip("]")) for line in errors}


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return mypy's report about the cases without their marks, and about an import of all names.

    Both files have one run, because each run takes seconds.
    """
    text, folder = CASES.read_text(encoding="utf-8"), tmp_path_factory.mktemp("typing")
    bare, everything = folder / "bare.py", folder / "everything.py"
    everything.write_text(EVERYTHING, encoding="utf-8")
    bare.write_text(
        "\n".join(
            line.partition(f"  {MARK}")[0] if "`" not in line else line
            for line in text.splitlines()
        ),
        encoding="utf-8",
    )
    return mypy(bare, everything)


def test_mypy_finds_the_marked_faults_and_only_those(report: str) -> None:
    text = CASES.read_text(encoding="utf-8")
    assert len(marks(text)) > 30
    assert found(report, "bare.py") == marks(text)


def test_mypy_knows_the_names_that_a_star_imports(report: str) -> None:
    assert found(report, "everything.py") == set()
