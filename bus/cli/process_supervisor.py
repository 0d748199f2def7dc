"""Worker processes: started, started again when they die, and stopped together."""

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

STARTING = 5.0
"""Seconds; a process that ends sooner with an error, and was never ready, has not started."""
FAILED_STARTS = 3
"""Starts in a row that fail before all is given up: a wrong setting does not mend itself."""
SIGNALS = (signal.SIGINT, signal.SIGTERM)


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """What is run, how many times, and whether it starts anew when the code changes."""

    arguments: list[str]
    processes: int
    reload: bool = False
    health: ProbeAddress | None = None
    """Where the parent answers for all of them."""


async def run_processes(command: Command) -> int:
    """Run the processes until a signal; the exit code is the worst of theirs."""
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
    watch = _watcher() if command.reload else None
    stop, changed = asyncio.Event(), asyncio.Event()
    children = [
        Child(arguments, stop, changed, number) for number, arguments in enumerate(lines, start=1)
    ]
    watching = asyncio.ensure_future(_watch(watch, changed)) if watch else None
    try:
        with _forwarded(stop, children):
            codes = await asyncio.gather(*(child.run() for child in children))
    finally:
        if watching is not None:
            watching.cancel()
    return max(codes)


class Child:
    """One worker process."""

    def __init__(
        self, arguments: list[str], stop: asyncio.Event, changed: asyncio.Event, number: int
    ) -> None:
        self._arguments = arguments
        self._stop = stop
        self._changed = changed
        self._number = number
        self._process: asyncio.subprocess.Process | None = None

    def signal(self, number: int) -> None:
        """Hand a signal on; a process that has ended needs none."""
        if self._process is not None and self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(number)

    async def run(self) -> int:
        """Run it until `stop`, again whenever it ends; the last exit code."""
        failures = 0
        while True:
            code, failed, reloading = await self._once()
            if self._stop.is_set():
                return code
            failures = failures + 1 if failed and not reloading else 0
            if failures >= FAILED_STARTS:
                print(  # noqa: T201 - its parent has no log
                    f"bus run: process {self._number} has not started {failures} times in a row; giving up",
                    file=sys.stderr,
                )
                self._stop.set()
                return code
            if not reloading:
                print(  # noqa: T201 - its parent has no log
                    f"bus run: process {self._number} ended with {code}; starting it again",
                    file=sys.stderr,
                )
                await asyncio.sleep(backoff(failures or 1))

    async def _once(self) -> tuple[int, bool, bool]:
        """One life: exit code (128 + signal for one that was killed), whether it failed to start, whether it ended for a reload."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        with _notification() as (told, telling):
            # A session of its own: the terminal's Ctrl-C reaches the parent alone, which hands it on once.
            line = [*self._arguments, "--notification-fd", str(telling)]
            self._process = await asyncio.create_subprocess_exec(
                *line, start_new_session=True, pass_fds=[telling]
            )
            code, reloading = await self._ended(self._process)
            # One that was ready and then died, perhaps of a message, is started again however soon that was.
            return (
                code,
                bool(code) and loop.time() - began < STARTING and not _has_come(told),
                reloading,
            )

    async def _ended(self, process: asyncio.subprocess.Process) -> tuple[int, bool]:
        reload = asyncio.ensure_future(self._changed.wait())
        stopping = asyncio.ensure_future(self._stop.wait())
        ended = asyncio.ensure_future(process.wait())
        try:
            await asyncio.wait((ended, reload, stopping), return_when=asyncio.FIRST_COMPLETED)
            asked = not ended.done()
            if asked:
                self.signal(signal.SIGTERM)
            code = await ended
            if asked and code == -signal.SIGTERM:
                code = 0  # it had not come to handling signals yet, and so had nothing to finish
            return (code if code >= 0 else 128 - code), reload.done()
        finally:
            for waiting in (reload, stopping):
                waiting.cancel()


@contextlib.contextmanager
def _notification() -> Iterator[tuple[int, int]]:
    """A pipe by which a process says that it is ready: where that is read, and where it is written."""
    told, telling = os.pipe()
    try:
        os.set_blocking(told, False)
        yield told, telling
    finally:
        os.close(told)
        os.close(telling)


def _has_come(told: int) -> bool:
    try:
        return bool(os.read(told, 1))
    except BlockingIOError:
        return False


def _watcher() -> Any:
    """The library that watches files, which only `--reload` needs."""
    try:
        return importlib.import_module("watchfiles")
    except ModuleNotFoundError:
        raise ConfigurationError(
            "--reload needs watchfiles; pip install 'trunkline[reload]'"
        ) from None


async def _watch(watchfiles: Any, changed: asyncio.Event) -> None:
    """Pulse `changed` whenever a Python file below this folder changes."""
    async for _ in watchfiles.awatch(Path.cwd(), watch_filter=watchfiles.PythonFilter()):
        print("bus run: the code has changed; starting anew", file=sys.stderr)  # noqa: T201 - its parent has no log
        changed.set()
        await asyncio.sleep(0)
        changed.clear()


@contextlib.contextmanager
def _forwarded(stop: asyncio.Event, children: list[Child]) -> Iterator[None]:
    """The first signal stops the children cleanly; each further one is handed on, and there means now."""
    loop = asyncio.get_running_loop()

    def on_signal(number: int) -> None:
        if stop.is_set():
            for child in children:
                child.signal(number)
        stop.set()

    for each in SIGNALS:
        loop.add_signal_handler(each, on_signal, int(each))
    try:
        yield
    finally:
        for each in SIGNALS:
            loop.remove_signal_handler(each)
