"""Worker process that runs the command `bus run`."""

import asyncio
import os
import signal
import sys
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, Self

from bus import Unavailable

__all__ = [
    "ABORT_TIMEOUT",
    "STOP_TIMEOUT",
    "WorkerProcess",
    "environment_without_health_port",
    "output_of",
]

STOP_TIMEOUT = 10.0
"""Seconds for the clean stop of a worker. The worker is idle at that time, so this is enough."""
ABORT_TIMEOUT = 1.0
"""Seconds for the stop of a worker after a failure. The worker can still have work."""


class WorkerProcess:
    """Process that serves a router until `stop` is called.

    If the process ends by itself, `stop` raises an error with the last line of its log.
    """

    def __init__(self, target: str, process: asyncio.subprocess.Process, log: BinaryIO) -> None:
        self._target = target
        self._process = process
        self._log = log
        self._ended = asyncio.ensure_future(process.wait())

    @classmethod
    async def start(cls, target: str, url: str, environment: Mapping[str, str]) -> Self:
        """Start `bus run` with the router `target` on the broker at `url`.

        The method does not wait until the process serves the router.
        """
        log = tempfile.TemporaryFile()  # noqa: SIM115 - closed by `stop`
        try:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "bus.cli", "run", target),
                cwd=Path(__file__).parents[2],
                env={
                    **environment_without_health_port(),
                    "BUS_URL": url,
                    "BUS_LOG_FORMAT": "console",
                    **environment,
                },
                stderr=log,
                start_new_session=True,
            )
        except BaseException:
            log.close()
            raise
        return cls(target, process, log)

    @property
    def pid(self) -> int:
        """Process id."""
        return self._process.pid

    @property
    def ended(self) -> bool:
        """True if the process has ended."""
        return self._ended.done()

    async def stop(self, timeout: float = STOP_TIMEOUT) -> None:
        """Stop the process cleanly, or kill it and its children after `timeout` seconds.

        Raise `Unavailable` if the process has already ended by itself.
        """
        died = self._ended.done()
        if not died:
            self._process.terminate()
        await asyncio.wait({self._ended}, timeout=timeout)
        with suppress(ProcessLookupError):  # it has ended, and so have its children
            os.killpg(self._process.pid, signal.SIGKILL)
        code = await self._ended
        with self._log:
            if died:
                raise Unavailable(f"{self._target} {self._describe_end(code)}")

    async def kill(self) -> None:
        """Kill the process and its children by SIGKILL, and wait until the process has ended."""
        with suppress(ProcessLookupError):  # it has ended, and so have its children
            os.killpg(self._process.pid, signal.SIGKILL)
        await self._ended
        self._log.close()

    def _describe_end(self, code: int) -> str:
        if code < 0:
            # Its log ends in the middle of its work, so the last line does not tell the reason.
            name = signal.Signals(-code).name
            return f"was ended by the signal {name}. Run the demonstration again."
        return f"ended by itself. Check its log: {_last_line(self._log)}"


async def output_of(module: str, *arguments: str, environment: Mapping[str, str]) -> str:
    """Run a module as a process of its own, and return its output.

    Raise `Unavailable` with the last line of its errors if the process fails.
    """
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", module, *arguments),
        cwd=Path(__file__).parents[2],
        env={**environment_without_health_port(), **environment},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        output, errors = await process.communicate()
    except BaseException:
        process.kill()
        await process.wait()
        raise
    if process.returncode:
        lines = errors.decode(errors="replace").strip().splitlines() or ["it says nothing"]
        raise Unavailable(f"the process {module} failed: {lines[-1]}")
    return output.decode()


def environment_without_health_port() -> dict[str, str]:
    """Return this process's environment without `BUS_HEALTH_PORT`.

    Another process may use that port, and a demonstration needs no health probes.
    """
    return {name: value for name, value in os.environ.items() if name != "BUS_HEALTH_PORT"}  # noqa: TID251 - for a child


def _last_line(log: BinaryIO) -> str:
    log.seek(0)
    lines = log.read().decode(errors="replace").split("\n")
    return next((line for line in reversed(lines) if line.strip()), "the log is empty")
