"""The JavaScript participant and the Python library, with signed and encrypted messages."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.npm import install
from tests.polling import until

ROOT = Path(__file__).parents[2]
SOURCES = ROOT / "examples" / "node"
BUS = str(Path(sys.executable).with_name("bus"))
QUEUE = "atelier.jobs.bind.v1"
ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")

VISITOR = """
answer: { shelf: 'A3' }
error: not_found: no such book
error: unavailable: library.burn.v1: no service serves this type
error: permission_denied: visitor has no right to atelier.engrave
progress 0.25: page 1
progress 0.5: page 2
progress 0.75: page 3
progress 1: page 4
result: { pages: 4 }
"""
READER = """
answer: EMMA
out_of_range: atelier.engrave.v1: the title is too long for a cover
Ulysses: progress 0% attempt 1 of 2 failed, the next is in 1s: the press is busy
Ulysses: progress 50% half
Ulysses: 4 pages
Sand: invalid_argument: atelier.bind.v1 (job <id>): a book of sand cannot be bound
"""
ATELIER = """
ready
event: Emma is scanned
Ulysses: attempt 1
Ulysses: attempt 2
Sand: attempt 1
Sand: attempt 1
stopped
"""


def lines(text: str) -> list[str]:
    return [ID.sub("<id>", line) for line in text.strip().splitlines()]


@pytest.fixture
def environment(tmp_path: Path, vhost_url: str) -> dict[str, str]:
    """Return the environment of every process: keys and grants of four services."""
    keys = tmp_path / "keys"
    own = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "BUS_URL": vhost_url,
        "BUS_AUTH": "on",
        "BUS_KEY": str(keys),
        "BUS_JWKS": str(keys / "jwks.json"),
        "BUS_GRANTS": str(SOURCES / "grants.toml"),
        "BUS_ENCRYPTION_KEYS": str(keys / "encryption.json"),
        "BUS_CONTRACTS": "examples.node.library",
    }
    for names in (["new", "library", "atelier", "reader", "visitor"], ["ring"]):
        finished([BUS, "keys", *names], own, tmp_path)
    return own


def finished(command: list[str], environment: dict[str, str], directory: Path) -> str:
    done = subprocess.run(
        command,
        env=environment,
        cwd=directory,
        capture_output=True,
        text=True,
        timeout=40,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@contextmanager
def running(
    command: list[str], environment: dict[str, str], directory: Path, output: Path
) -> Iterator[None]:
    with output.open("w") as file:
        process = subprocess.Popen(
            command, env=environment, cwd=directory, stdout=file, stderr=subprocess.STDOUT
        )
    try:
        yield
    finally:
        process.terminate()
        process.wait(20)


async def test_a_javascript_participant_and_the_library_serve_each_other(
    environment: dict[str, str], tmp_path: Path
) -> None:
    node = tmp_path / "node"
    shutil.copytree(SOURCES, node, ignore=shutil.ignore_patterns("node_modules"))
    install(node)
    library, atelier = tmp_path / "library.log", tmp_path / "atelier.log"
    serving = [BUS, "run", "examples.node.library:router"]
    with (
        running(serving, environment, ROOT, library),
        running(["node", "atelier.mjs"], environment, node, atelier),
    ):
        await until(lambda: "ready" in atelier.read_text(), "atelier.mjs")
        await until(lambda: "serving" in library.read_text(), "library.py")
        visitor = finished(["node", "demo.mjs"], environment, node)
        reader = finished([sys.executable, str(SOURCES / "reader.py")], environment, ROOT)
        listed = [BUS, "dead", "list", "--queue", QUEUE, "--json"]
        dead = finished(listed, environment, ROOT)
        finished([BUS, "dead", "replay", "--queue", QUEUE], environment, ROOT)
        await until(lambda: "event: Sand is bound" in library.read_text(), "the replay")
    assert lines(visitor) == lines(VISITOR)
    assert lines(reader) == lines(READER)
    assert "invalid_argument" in dead
    assert "a book of sand cannot be bound" in dead
    assert lines(atelier.read_text()) == lines(ATELIER)
    told = [line for line in library.read_text().splitlines() if line.startswith("event:")]
    assert told == ["event: Ulysses is bound", "event: Sand is bound"]
