"""Keeps one private node, and ends it when its owner ends, however that ends.

usage: python guard.py DIRECTORY EPMD SERVER      (`ERL_EPMD_PORT` and the node's variables in the environment)

`PrivateNode` runs this file as a program, in a session and process group of its own, with a pipe as standard input.
The pipe's end means that the owner is gone, even by SIGKILL: then the node is killed and DIRECTORY removed. SIGTERM
means an orderly end. Should the guard itself be killed, the kernel kills its children (on Linux).
Standard library only, so that it starts in a few milliseconds.
"""

import contextlib
import ctypes
import json
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

STOP_GRACE_SECONDS = 15.0  # seconds for an orderly end; a node with thousands of queues needs a few
EPMD_TIMEOUT_SECONDS = 10.0  # seconds; it takes a few milliseconds on an idle machine
POLL_INTERVAL_SECONDS = (
    0.1  # seconds between two looks at the node; bounds how late its own end is noticed
)
PR_SET_PDEATHSIG = 1  # prctl(2)


def main(directory: str, epmd: str, server: str) -> int:
    """Start both, then watch the owner, the node and the wish to stop; 0 after an orderly end."""
    wanted = StopSignal()
    name_server = start([epmd, "-address", "127.0.0.1"])
    try:
        wait_for_port(int(os.environ["ERL_EPMD_PORT"]), name_server)
        node = start([server])
        Path(directory, "pids.json").write_text(
            json.dumps({"epmd": name_server.pid, "node": node.pid}), encoding="utf-8"
        )
        return watch(node, wanted, Path(directory))
    finally:
        end(name_server)


class StopSignal:
    """Becomes true when SIGTERM or SIGINT arrives."""

    def __init__(self) -> None:
        self.asked = False
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._ask)

    def _ask(self, *_: object) -> None:
        self.asked = True


def start(command: list[str]) -> subprocess.Popen[bytes]:
    """Start a child that cannot outlive this process and reads no terminal."""
    return subprocess.Popen(command, stdin=subprocess.DEVNULL, preexec_fn=death_wish())  # noqa: PLW1509  one thread only here


def death_wish() -> Callable[[], object] | None:
    """On Linux, what makes the kernel kill the calling process when its parent ends."""
    if sys.platform != "linux":
        return None
    libc = ctypes.CDLL(None)  # loaded here, before the fork
    return lambda: libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def wait_for_port(port: int, process: subprocess.Popen[bytes]) -> None:
    """Return once `port` accepts; the node must find this name server, or it would start one that nobody ends."""
    deadline = time.monotonic() + EPMD_TIMEOUT_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 0.2):
            return
        time.sleep(0.005)
    sys.exit(f"guard: epmd did not open port {port}")


def watch(node: subprocess.Popen[bytes], wanted: StopSignal, directory: Path) -> int:
    """Until the node ends, a stop is wanted, or the owner is gone."""
    while node.poll() is None:
        if wanted.asked:
            return stop(node)
        if owner_is_gone():
            end(node)
            shutil.rmtree(directory, ignore_errors=True)
            return 1
    return 1


def owner_is_gone() -> bool:
    """Whether the pipe to the owner has ended; waits for at most `TURN`."""
    readable, _, _ = select.select([sys.stdin], [], [], POLL_INTERVAL_SECONDS)
    return bool(readable) and not os.read(sys.stdin.fileno(), 1)


def stop(node: subprocess.Popen[bytes]) -> int:
    """End the node in order, or by force after `GRACE`."""
    node.terminate()
    try:
        node.wait(STOP_GRACE_SECONDS)
    except subprocess.TimeoutExpired:
        end(node)
        return 1
    return 0


def end(process: subprocess.Popen[bytes]) -> None:
    """End it by force."""
    process.kill()
    process.wait()


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
