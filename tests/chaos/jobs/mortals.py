"""Worker processes that are killed at crash points: `python -m tests.chaos.jobs.mortals`.

The command forks a process for each line `start NUMBER ENVIRONMENT` of its input, with the
environment as JSON. It sends SIGTERM to a process for `stop NUMBER`. It prints `ready NUMBER` and
`ended NUMBER STATUS`, with a negative status for a signal. A fork takes milliseconds, because the
command has imported the bus before.
"""

import asyncio
import json
import os
import select
import signal
import traceback
from contextlib import suppress
from importlib import import_module
from typing import Final

from bus import Bus
from tests.chaos.jobs.crash_points import arm
from tests.chaos.jobs.errand import SERVICE, router_of

__all__ = ["main"]

POLL = 0.02
"""Seconds between two looks for processes that have ended."""
LATE: Final = ("store", "sqlite_engine", "postgresql_engine")
"""Modules that the bus imports when it opens a store. Each process would take 0.07 s for them."""


def main() -> None:
    """Run until the input ends. Then kill the processes that are left."""
    for name in LATE:
        import_module(f"bus.storage.sqlalchemy.{name}")
    running: dict[int, int] = {}
    text, is_open = b"", True
    while is_open:
        if select.select([0], [], [], POLL)[0]:
            read = os.read(0, 65536)
            is_open, text = bool(read), text + read
            *lines, text = text.split(b"\n")
            for line in lines:
                obey(line.decode(), running)
        report_ends(running)
    for pid in running:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def obey(line: str, running: dict[int, int]) -> None:
    """Start or stop a process. `running` has the number of each process by its id."""
    order, number, *rest = line.split(" ", 2)
    if order == "stop":
        for pid, each in running.items():
            if each == int(number):
                os.kill(pid, signal.SIGTERM)
        return
    pid = os.fork()
    if pid:
        running[pid] = int(number)
        return
    code = 1
    try:
        os.environ.update(json.loads(rest[0]))
        arm()
        asyncio.run(serve(number))
        code = 0
    except BaseException:
        traceback.print_exc()
        raise
    finally:
        os._exit(code)


def report_ends(running: dict[int, int]) -> None:
    """Print the processes that have ended."""
    while running:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if not pid:
            return
        say(f"ended {running.pop(pid)} {os.waitstatus_to_exitcode(status)}")


def say(line: str) -> None:
    """Print a line with one write, because the processes share the output."""
    os.write(1, f"{line}\n".encode())


async def serve(number: str) -> None:
    """Serve until SIGTERM."""
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    async with Bus(SERVICE) as bus, bus.serving(router_of()):
        say(f"ready {number}")
        await stop.wait()


if __name__ == "__main__":
    main()
