import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs/reference/wire-examples.md"


def test_the_wire_examples_are_what_is_on_the_wire_now(vhost_url: str) -> None:
    environment = {**os.environ, "BUS_URL": vhost_url, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, str(ROOT / "scripts/wire_examples.py")]
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=150, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == PAGE.read_text(encoding="utf-8"), (
        f"write it anew: python scripts/wire_examples.py > {PAGE.relative_to(ROOT)}"
    )
