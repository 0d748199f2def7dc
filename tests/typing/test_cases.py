import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
CASES = Path(__file__).with_name("cases.py")
MARK = "# type: ignore["


def mypy(file: Path) -> str:
    """Return the report of `mypy --strict` with the project's settings."""
    command = [
        sys.executable,
        "-m",
        "mypy",
        "--strict",
        "--no-error-summary",
        "--show-error-codes",
        "--no-pretty",
        str(file),
    ]
    return subprocess.run(
        command, capture_output=True, text=True, check=False, cwd=ROOT, timeout=60
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


def test_mypy_finds_the_marked_faults_and_only_those(tmp_path: Path) -> None:
    text = CASES.read_text(encoding="utf-8")
    bare = tmp_path / "bare.py"
    bare.write_text(
        "\n".join(
            line.partition(f"  {MARK}")[0] if "`" not in line else line
            for line in text.splitlines()
        ),
        encoding="utf-8",
    )
    assert len(marks(text)) > 30
    assert found(mypy(bare), "bare.py") == marks(text)
