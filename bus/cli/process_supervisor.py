"""Supervision of worker processes: start them, restart them after a crash, and stop all of them.

With `reload`, a process that cannot start waits until the code changes, for example because of a
syntax error.
"""

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Coroutine, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from bus.cli.code_changes import CodeChanges, load_watchfiles, watch
from bus.cli.metrics_pages import parent_pages
from bus.messaging.backoff import backoff
from bus.operations.health import aggregate, serve_probes
from bus.operations.http_address import HttpAddress

__all__ = ["Command", "run_processes"]

START_SECONDS = 5.0
"""Seconds in which the end of a new process counts as a failed start.

The start has failed if the process ends within this time, and did not report that it was ready.
"""
MAX_FAILED_STARTS = 3
"""Limit of consecutive failed starts of one process. At this limit all processes are stopped.

Repeated failures usually have a permanent cause, for example a wrong setting.
"""
RETRIED = (os.EX_UNAVAILABLE, os.EX_TEMPFAIL)
"""Exit codes of a failed start that is tried again without a change of the code.

The cause is not the code, for example a broker that does not answer.
"""
SIGNALS = (signal.SIGINT, signal.SIGTERM)


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """Command that the supervisor runs, and the options of the supervision."""

    arguments: list[str]
    processes: int
    """Number of processes that run the command."""
    reload: bool = False
    """True if the processes are restarted when a Python file changes."""
    health: HttpAddress | None = None
    """Address on which the parent serves health probes and metrics of all processes."""


async def run_processes(command: Command) -> int:
    """Run the processes until SIGINT or SIGTERM, and return their highest exit code."""
    if command.health is None:
        return await _run(command, [command.arguments] * command.processes)
    with TemporaryDirectory(prefix="bus-health-") as directory:
        sockets = [Path(directory, str(number)) for number in range(1, command.processes + 1)]
        checks, pages = aggregate(sockets), parent_pages(sockets)
        async with serve_probes(
            command.health, ready=checks.ready, live=checks.live, note=checks.note, pages=pages
        ):
            return await _run(
                command,
                [[*command.arguments, "--health-socket", str(socket)] for socket in sockets],
            )


async def _run(command: Command, lines: Sequence[list[str]]) -> int:
    watchfiles = load_watchfiles() if command.reload else None
    stop, changes = asyncio.Event(), CodeChanges() if command.reload else None
    children = [
        Child(arguments, stop, changes, number) for number, arguments in enumerate(lines, start=1)
    ]
    watching = asyncio.ensure_future(watch(watchfiles, changes)) if changes is not None else None
    try:
        with forward_signals(stop, children):
            codes = await asyncio.gather(*(child.run() for child in children))
    finally:
        if watching is not None:
            watching.cancel()
    return max(codes)


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One run of a process that has ended."""

    code: int
    """The exit code. It is 128 plus the signal's number if a signal killed the process."""
    was_ready: bool
    """True if the process reported that it was ready, even if it crashed soon afterwards."""
    was_short: bool
    """True if the run took less than `START_SECONDS`."""
    is_reload: bool
    """True if the process was ended because the code has changed."""

    @property
    def outcome(self) -> str:
        """The exit code, and the name of the signal that killed the process."""
        with contextlib.suppress(ValueError):
            return f"exit code {self.code}, after the signal {signal.Signals(self.code - 128).name}"
        return f"exit code {self.code}"


class Child:
    """One supervised worker process, with its restarts."""

    def __init__(
        self,
        arguments: list[str],
        stop: asyncio.Event,
        changes: CodeChanges | None,
        number: int,
    ) -> None:
        self._arguments = arguments
        self._stop = stop
        self._changes = changes
        self._number = number
        self._process: asyncio.subprocess.Process | None = None

    def signal(self, number: int) -> None:
        """Send a signal to the process if it is running."""
        if self._process is not None and self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(number)

    async def run(self) -> int:
        """Run the process, and restart it whenever it ends.

        Return the exit code of the last run when `stop` is set, or after too many failed starts.
        """
        failures = 0
        while True:
            changes = self._changes.count if self._changes is not None else 0
            run = await self._run_once(changes)
            if self._stop.is_set():
                return run.code
            if run.is_reload:
                failures = 0
            elif self._changes is not None and not run.was_ready and run.code not in RETRIED:
                failures = 0
                await self._wait_for_change(self._changes, changes, run)
                if self._stop.is_set():
                    return run.code
            else:
                failures = failures + 1 if run.was_short and not run.was_ready else 0
                if failures >= MAX_FAILED_STARTS:
                    self._say(
                        f"has failed to start {failures} times in a row; stopping all processes"
                    )
                    self._stop.set()
                    return run.code or os.EX_SOFTWARE
                self._say(f"ended with {run.outcome}; restarting")
                await self._until_stopped(asyncio.sleep(backoff(failures or 1)))

    async def _wait_for_change(self, changes: CodeChanges, count: int, run: Run) -> None:
        if changes.count <= count:
            self._say(f"has failed to start ({run.outcome}); waiting for a change of the code")
        await self._until_stopped(changes.wait_after(count))

    async def _until_stopped(self, waiting: Coroutine[Any, Any, None]) -> None:
        """Wait for `waiting`, or until the processes are stopped."""
        tasks = [asyncio.ensure_future(waiting), asyncio.ensure_future(self._stop.wait())]
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in tasks:
            task.cancel()

    def _say(self, what: str) -> None:
        # The parent has no log.
        print(f"bus run: process {self._number} {what}", file=sys.stderr)  # noqa: T201

    async def _run_once(self, changes: int) -> Run:
        """Start the process, and wait until it ends.

        Args:
            changes: The number of changes of the code before the start. At the next change, the
                process is ended.
        """
        loop = asyncio.get_running_loop()
        began = loop.time()
        with _open_pipe() as (reader, writer):
            # Start the process in its own session. Ctrl-C in the terminal then reaches only the
            # parent, and the parent stops the process.
            line = [*self._arguments, "--notification-fd", str(writer)]
            self._process = await asyncio.create_subprocess_exec(
                *line, start_new_session=True, pass_fds=[writer]
            )
            code, is_reload = await self._wait(self._process, changes)
            return Run(
                code=code,
                was_ready=_is_notified(reader),
                was_short=loop.time() - began < START_SECONDS,
                is_reload=is_reload,
            )

    async def _wait(self, process: asyncio.subprocess.Process, changes: int) -> tuple[int, bool]:
        reload = asyncio.ensure_future(_wait_for_reload(self._changes, changes))
        stopping = asyncio.ensure_future(self._stop.wait())
        ended = asyncio.ensure_future(process.wait())
        try:
            await asyncio.wait((ended, reload, stopping), return_when=asyncio.FIRST_COMPLETED)
            terminated = not ended.done()
            if terminated:
                self.signal(signal.SIGTERM)
            code = await ended
            if terminated and code == -signal.SIGTERM:
                # SIGTERM killed the process before it handled signals. The process had no work
                # yet, so the stop counts as clean.
                code = 0
            return (code if code >= 0 else 128 - code), reload.done()
        finally:
            for task in (reload, stopping):
                task.cancel()


async def _wait_for_reload(changes: CodeChanges | None, count: int) -> None:
    """Wait for a change of the code, or forever without `reload`."""
    if changes is None:
        await asyncio.Event().wait()
    else:
        await changes.wait_after(count)


@contextlib.contextmanager
def _open_pipe() -> Iterator[tuple[int, int]]:
    """Yield both ends of a pipe: read, write. The child process writes to it when it is ready."""
    reader, writer = os.pipe()
    try:
        os.set_blocking(reader, False)
        yield reader, writer
    finally:
        os.close(reader)
        os.close(writer)


def _is_notified(reader: int) -> bool:
    try:
        return bool(os.read(reader, 1))
    except BlockingIOError:
        return False


@contextlib.contextmanager
def forward_signals(stop: asyncio.Event, children: list[Child]) -> Iterator[list[int]]:
    """Stop the children cleanly at the first signal, and forward each later signal to them.

    A forwarded signal makes a child stop immediately, without a clean stop. If too many failed
    starts have set `stop`, the next signal is still the first one.

    The block gets a list, to which each received signal is appended.
    """
    loop, received = asyncio.get_running_loop(), list[int]()

    def on_signal(number: int) -> None:
        received.append(number)
        if len(received) > 1:
            for child in children:
                child.signal(number)
        stop.set()

    for number in SIGNALS:
        loop.add_signal_handler(number, on_signal, int(number))
    try:
        yield received
    finally:
        for number in SIGNALS:
            loop.remove_signal_handler(number)
