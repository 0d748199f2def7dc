"""SIGTERM to `bus` as process 1 of a container, in a process of its own."""

import subprocess
import sys

import pytest

RAISE = "import os, signal; os.kill(os.getpid(), signal.SIGTERM)"


@pytest.mark.parametrize(("process_id", "code"), [(1, 143), (7, -15)])
def test_sigterm_ends_process_1_before_the_worker_handles_it(process_id: int, code: int) -> None:
    program = f"from bus.cli import end_at_sigterm; end_at_sigterm({process_id}); {RAISE}"
    ended = subprocess.run([sys.executable, "-c", program], check=False, timeout=60)
    assert ended.returncode == code
