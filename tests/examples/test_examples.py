import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
EXAMPLES = sorted((ROOT / "examples").glob("[0-9]*.py"))
LONGEST = 60
UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")

PRINTED = {
    "01_request": """
answer: shelf A3
NotFound: library.find.v1: no such book
DeadlineExceeded: half a second is over
NotServed: no handler for this (at once: True)
""",
    "02_event": """
published
notify: a reader waits for Emma (correlation visit-1)
shelve: Emma returns to its shelf (correlation visit-1)
""",
    "03_job": """
submitted <id>
progress 25% page 1
progress 50% page 2
progress 75% page 3
progress 100% page 4
result: 4 pages
event: Emma is scanned (cause <id>)
""",
    "04_retry_and_dead_letter": """
Emma: attempt 1
Emma: attempt 2
Emma: bound
Sand: attempt 1
Sand: failed, invalid_argument
Ulysses: attempt 1
Ulysses: attempt 2
Ulysses: failed, internal
dead letter: InvalidArgument: a book of sand cannot be bound (attempts 1)
dead letter: RuntimeError (attempts 2)
""",
    "05_faststream": """
the bus's handler: Ulysses is on J7
FastStream's subscriber: Emma goes to A3
""",
    "06_test_without_a_broker": """
bound on shelf B1: 1 h on the virtual clock, 0 h on the real one
error: library.bind.v1 (job <id>): message not sent: no connection to the model broker
certainly not sent: True
""",
}


def run(example: Path, url: str) -> subprocess.CompletedProcess[str]:
    """Run the example in its own process, as its reader runs it."""
    environment = {**os.environ, "BUS_URL": url, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "error"}
    command = [sys.executable, str(example)]
    return subprocess.run(
        command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=150, check=False
    )


def test_every_example_has_its_output_written_down() -> None:
    assert [example.stem for example in EXAMPLES] == sorted(PRINTED)


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_is_at_most_60_lines_long(example: Path) -> None:
    assert len(example.read_text(encoding="utf-8").splitlines()) <= LONGEST


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_prints_what_it_promises(example: Path, vhost_url: str) -> None:
    done = run(example, vhost_url)
    assert done.returncode == 0, done.stderr
    printed = [UUID.sub("<id>", line) for line in done.stdout.splitlines()]
    assert printed == PRINTED[example.stem].split("\n")[1:-1]
