"""Supervision of worker processes: start them, restart them after a crash, and stop all of them."""

import asyncio
import contextlib
import importlib
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from bus.errors import ConfigurationError
from bus.messaging.backoff import backoff
from bus.operations.health import ProbeAddress, aggregate, serve_probes

__all__ = ["Command", "run_processes"]

START_SECONDS = 5.0
"""Seconds in which an error of a new process counts as a failed start.

The start has failed if the process ends with an error within this time, and did not report that
it was ready.
"""
MAX_FAILED_STARTS = 3
"""Limit of consecutive failed starts of one process. At this limit all processes are stopped.

Repeated failures usually have a permanent cause, for example a wrong setting.
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
    health: ProbeAddress | None = None
    """Address on which the parent answers health probes for all processes."""


async def run_processes(command: Command) -> int:
    """Run the processes until SIGINT or SIGTERM, and return their highest exit code."""
    if command.health is None:
        return await _run(command, [command.arguments] * command.processes)
    with TemporaryDirectory(prefix="bus-health-") as directory:
        sockets = [Path(directory, str(number)) for number in range(1, command.processes + 1)]
        async with serve_probes(command.health, **aggregate(sockets)):
            return await _run(
                command,
                [[*command.arguments, "--health-socket", str(socket)] for socket in sockets],
            )


async def _run(command: Command, lines: Sequence[list[str]]) -> int:
    watch = _load_watchfiles() if command.reload else None
    stop, changed = asyncio.Event(), asyncio.Event()
    children = [
        Child(arguments, stop, changed, number) for number, arguments in enumerate(lines, start=1)
    ]
    watching = asyncio.ensure_future(_watch(watch, changed)) if watch else None
    try:
        with _forward_signals(stop, children):
            codes = await asyncio.gather(*(child.run() for child in children))
    finally:
        if watching is not None:
            watching.cancel()
    return max(codes)


class Child:
    """One supervised worker process, with its restarts."""

    def __init__(
        self, arguments: list[str], stop: asyncio.Event, changed: asyncio.Event, number: int
    ) -> None:
        self._arguments = arguments
        self._stop = stop
        self._changed = changed
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
            code, failed, reloading = await self._run_once()
            if self._stop.is_set():
                return code
            failures = failures + 1 if failed and not reloading else 0
            if failures >= MAX_FAILED_STARTS:
                print(  # noqa: T201 - the parent has no log
                    f"bus run: process {self._number} has failed to start {failures} times "
                    "in a row; stopping all processes",
                    file=sys.stderr,
                )
                self._stop.set()
                return code
            if not reloading:
                print(  # noqa: T201 - the parent has no log
                    f"bus run: process {self._number} ended with exit code {code}; restarting",
                    file=sys.stderr,
                )
                await asyncio.sleep(backoff(failures or 1))

    async def _run_once(self) -> tuple[int, bool, bool]:
        """Start the process, and wait until it ends.

        Returns:
            The exit code, whether the start failed, and whether the process ended for a reload.
            The exit code is 128 plus the signal's number if a signal killed the process.
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
            code, reloading = await self._wait(self._process)
            # A process that reported that it was ready has started successfully, even if it
            # crashed soon afterwards, for example because of a message.
            early = loop.time() - began < START_SECONDS
            return code, bool(code) and early and not _is_notified(reader), reloading

    async def _wait(self, process: asyncio.subprocess.Process) -> tuple[int, bool]:
        reload = asyncio.ensure_future(self._changed.wait())
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


def _load_watchfiles() -> Any:
    """Import `watchfiles`. It is imported only here, because only `--reload` requires it."""
    try:
        return importlib.import_module("watchfiles")
    except ModuleNotFoundError:
        raise ConfigurationError(
            "--reload requires watchfiles, which is not installed. "
            "Install it: pip install 'trunkline[reload]'."
        ) from None


async def _watch(watchfiles: Any, changed: asyncio.Event) -> None:
    """Set `changed` for a moment whenever a Python file in this folder or below changes."""
    async for _ in watchfiles.awatch(Path.cwd(), watch_filter=watchfiles.PythonFilter()):
        print("bus run: the code has changed; restarting", file=sys.stderr)  # noqa: T201 - as above
        changed.set()
        await asyncio.sleep(0)
        changed.clear()


@contextlib.contextmanager
def _forward_signals(stop: asyncio.Event, children: list[Child]) -> Iterator[None]:
    """Stop the children cleanly at the first signal, and forward each later signal to them.

    A forwarded signal makes a child stop immediately, without a clean stop.
    """
    loop = asyncio.get_running_loop()

    def on_signal(number: int) -> None:
        if stop.is_set():
            for child in children:
                child.signal(number)
        stop.set()

    for number in SIGNALS:
        loop.add_signal_handler(number, on_signal, int(number))
    try:
        yield
    finally:
        for number in SIGNALS:
            loop.remove_signal_handler(number)
