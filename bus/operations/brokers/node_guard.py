"""The guard of a private node: a program that stops the node when the owner process ends.

usage: python node_guard.py DIRECTORY EPMD SERVER [LOCK]

The environment contains `ERL_EPMD_PORT` and the node's variables.

`PrivateNode`, the owner, runs this file as a program. The guard has its own session and process
group. The guard's standard input is a pipe from the owner. If the owner ends, even by SIGKILL, the
pipe closes. When the pipe closes, the guard kills the node and removes DIRECTORY. On SIGTERM the
guard shuts the node down gracefully. If the guard itself is killed on Linux, the kernel kills epmd
and the node. On other systems, epmd and the node continue to run.

LOCK is the file descriptor of a lock on DIRECTORY, if the node's data is kept. With LOCK, the guard
never removes DIRECTORY. When the pipe closes, it shuts the node down gracefully.

This file imports only the standard library, so it starts in a few milliseconds.
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

STOP_GRACE_SECONDS = 15.0
"""Maximum seconds for a graceful stop. A node with thousands of queues needs a few seconds."""
EPMD_TIMEOUT_SECONDS = 10.0
"""Maximum seconds for the start of epmd. On an idle machine the start takes a few milliseconds."""
POLL_INTERVAL_SECONDS = 0.1
"""Seconds between two checks of the node. After this time the guard has noticed an end."""
PR_SET_PDEATHSIG = 1
"""Option of prctl(2). It sets the signal that a child process receives when its parent ends."""


def main(directory: str, epmd: str, server: str, lock: str | None = None) -> int:
    """Start epmd and the node. Watch the node until it ends. Return 0 after a graceful stop."""
    stop_signal = StopSignal()
    name_server = start([epmd, "-address", "127.0.0.1"])
    try:
        wait_for_port(int(os.environ["ERL_EPMD_PORT"]), name_server)
        # The node inherits the lock, so no other node can use the data while the node runs.
        node = start([server], () if lock is None else (int(lock),))
        Path(directory, "pids.json").write_text(
            json.dumps({"epmd": name_server.pid, "node": node.pid}), encoding="utf-8"
        )
        return watch(node, stop_signal, Path(directory) if lock is None else None)
    finally:
        end(name_server)


class StopSignal:
    """A flag that is set when SIGTERM or SIGINT arrives."""

    def __init__(self) -> None:
        self.received = False
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._set)

    def _set(self, *_: object) -> None:
        self.received = True


def start(command: list[str], inherited: tuple[int, ...] = ()) -> subprocess.Popen[bytes]:
    """Start a child process that does not read the terminal.

    `inherited` are the file descriptors that the child process gets.

    On Linux the kernel kills the child process when the guard ends.
    """
    return subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        pass_fds=inherited,
        preexec_fn=die_with_parent(),  # noqa: PLW1509 - safe, as this process has one thread
    )


def die_with_parent() -> Callable[[], object] | None:
    """Return a function that the child process must run. Return None if the system is not Linux.

    After the function has run, the kernel kills the child process when the guard ends.
    """
    if sys.platform != "linux":
        return None
    # Load the C library in this process. After the fork, the child process cannot load it safely.
    libc = ctypes.CDLL(None)
    return lambda: libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def wait_for_port(port: int, process: subprocess.Popen[bytes]) -> None:
    """Wait until `port` accepts connections.

    Call this function before the node is started. If a node finds no name server, the node starts
    one, and that name server never ends.
    """
    deadline = time.monotonic() + EPMD_TIMEOUT_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 0.2):
            return
        time.sleep(0.005)
    sys.exit(f"guard: epmd did not open port {port}")


def watch(node: subprocess.Popen[bytes], stop_signal: StopSignal, temporary: Path | None) -> int:
    """Wait until the node ends.

    If a stop signal arrives, stop the node. If the owner ends, kill the node and remove its
    temporary directory. If the node has none, stop the node. Return 0 after a graceful stop.
    """
    while node.poll() is None:
        if stop_signal.received:
            return stop(node)
        if owner_is_gone():
            if temporary is None:
                return stop(node)
            end(node)
            shutil.rmtree(temporary, ignore_errors=True)
            return 1
    return 1


def owner_is_gone() -> bool:
    """Return True if the pipe to the owner is closed. Wait at most `POLL_INTERVAL_SECONDS`."""
    readable, _, _ = select.select([sys.stdin], [], [], POLL_INTERVAL_SECONDS)
    return bool(readable) and not os.read(sys.stdin.fileno(), 1)


def stop(node: subprocess.Popen[bytes]) -> int:
    """Stop the node gracefully. Kill the node if it still runs after `STOP_GRACE_SECONDS`."""
    node.terminate()
    try:
        node.wait(STOP_GRACE_SECONDS)
    except subprocess.TimeoutExpired:
        end(node)
        return 1
    return 0


def end(process: subprocess.Popen[bytes]) -> None:
    """Kill a process, and wait for its end."""
    process.kill()
    process.wait()


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
