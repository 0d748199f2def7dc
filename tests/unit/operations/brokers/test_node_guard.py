"""The guard of a node, with a script in the place of RabbitMQ."""

import fcntl
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bus.operations.brokers import node_guard
from bus.operations.brokers.installation import find_epmd
from bus.operations.brokers.ports import free_ports
from tests.polling import until

SERVER = """#!/bin/sh
trap 'touch stopped; exit 0' TERM
touch started
while true; do sleep 0.02; done
"""

Start = Callable[..., subprocess.Popen[bytes]]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Return a function that starts the guard of a script."""
    server, directory = tmp_path / "server", tmp_path / "node"
    server.write_text(SERVER)
    server.chmod(0o700)
    directory.mkdir()
    epmd = find_epmd(os.environ["PATH"])
    assert epmd
    processes: list[subprocess.Popen[bytes]] = []

    def run(*locks: int) -> subprocess.Popen[bytes]:
        words = (directory, epmd, server, *locks)
        process = subprocess.Popen(
            [sys.executable, "-I", "-S", node_guard.__file__, *map(str, words)],
            env={"PATH": os.environ["PATH"], "ERL_EPMD_PORT": str(free_ports(1)[0])},
            cwd=directory,
            stdin=subprocess.PIPE,
            pass_fds=locks,
        )
        processes.append(process)
        return process

    yield run
    for process in processes:
        process.kill()
        process.communicate()


async def test_a_kept_node_stops_gracefully_and_stays_locked_when_its_owner_dies(
    start: Start, tmp_path: Path
) -> None:
    lock = os.open(tmp_path / "lock", os.O_RDWR | os.O_CREAT)
    fcntl.flock(lock, fcntl.LOCK_EX)
    guard = start(lock)
    await until((tmp_path / "node" / "started").exists, "the start of the node")
    os.close(lock)
    another = os.open(tmp_path / "lock", os.O_RDWR)
    with pytest.raises(BlockingIOError):
        fcntl.flock(another, fcntl.LOCK_EX | fcntl.LOCK_NB)

    assert guard.stdin
    guard.stdin.close()
    await until(lambda: guard.poll() is not None, "the end of the guard")
    assert (tmp_path / "node" / "stopped").exists()
    fcntl.flock(another, fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.close(another)


async def test_the_directory_of_another_node_is_removed_when_its_owner_dies(
    start: Start, tmp_path: Path
) -> None:
    guard = start()
    await until((tmp_path / "node" / "started").exists, "the start of the node")
    assert guard.stdin
    guard.stdin.close()
    await until(lambda: guard.poll() is not None, "the end of the guard")
    assert not (tmp_path / "node").exists()
