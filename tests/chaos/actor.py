"""The driver's control of a sender's or worker's process."""

import asyncio
import os
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.integration.command import ROOT

__all__ = ["Actor"]

READY = 120.0
"""Seconds to wait until a process is ready.

On an idle machine it takes one or two, and a Celery worker takes five.
"""
STOP = 120.0
"""Seconds to wait for an orderly end."""


class Actor:
    """A process that the driver starts, asks to finish, and stops or kills."""

    def __init__(self, name: str, process: asyncio.subprocess.Process, log: Path) -> None:
        self.name = name
        self._process = process
        self._log = log

    @classmethod
    async def started(
        cls, name: str, command: Sequence[str], environment: Mapping[str, str], directory: Path
    ) -> "Actor":
        """Start a process, and wait for its first line, which reports that it is ready."""
        log = directory / f"{name}.log"
        with log.open("ab") as complaints:
            process = await asyncio.create_subprocess_exec(
                *command,
                cwd=ROOT,
                env={"BUS_AUTH": "off", **os.environ, "PYTHONPATH": str(ROOT), **environment},
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=complaints,
                start_new_session=True,
            )
        actor = cls(name, process, log)
        try:
            await actor._ready()
        except BaseException:
            await actor.kill()
            raise
        return actor

    async def _ready(self) -> None:
        assert self._process.stdout
        async with asyncio.timeout(READY):
            line = await self._process.stdout.readline()
        assert line == b"ready\n", f"{self.name} did not start:\n{self.said()}"

    @property
    def running(self) -> bool:
        return self._process.returncode is None

    def said(self) -> str:
        """Return the end of the log."""
        return "\n".join(self._log.read_text(encoding="utf-8", errors="replace").splitlines()[-30:])

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the process, but not to its children."""
        self._process.send_signal(number)

    def enough(self) -> None:
        """Close its standard input, so that the process finishes."""
        assert self._process.stdin
        self._process.stdin.close()

    async def ended(self, seconds: float = STOP) -> int:
        """Wait until the process ends by itself, and return its exit code."""
        async with asyncio.timeout(seconds):
            return await self._process.wait()

    async def stopped(self) -> int:
        """Send SIGTERM, and return the exit code."""
        self.signal(signal.SIGTERM)
        return await self.ended()

    async def kill(self) -> None:
        """Kill the process and its children by SIGKILL."""
        if self.running:
            os.killpg(self._process.pid, signal.SIGKILL)
            await self._process.wait()
