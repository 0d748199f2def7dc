"""A sender's or worker's process, from the driver's side."""

import asyncio
import os
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.integration.command import ROOT

__all__ = ["Actor"]

READY = 120.0
"""Seconds until a process is ready; it takes one or two on an idle machine, and a Celery worker five."""
STOP = 120.0
"""Seconds for an end in order."""


class Actor:
    """One process: started, told that it is enough, ended in order or by force."""

    def __init__(self, name: str, process: asyncio.subprocess.Process, log: Path) -> None:
        self.name = name
        self._process = process
        self._log = log

    @classmethod
    async def started(
        cls, name: str, command: Sequence[str], environment: Mapping[str, str], directory: Path
    ) -> "Actor":
        """Running, and ready: its first line says so."""
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
        """The end of its log."""
        return "\n".join(self._log.read_text(encoding="utf-8", errors="replace").splitlines()[-30:])

    def signal(self, number: signal.Signals) -> None:
        """To it alone."""
        self._process.send_signal(number)

    def enough(self) -> None:
        """Its standard input ends."""
        assert self._process.stdin
        self._process.stdin.close()

    async def ended(self, seconds: float = STOP) -> int:
        """Its exit code, once it has ended by itself."""
        async with asyncio.timeout(seconds):
            return await self._process.wait()

    async def stopped(self) -> int:
        """SIGTERM, and its exit code."""
        self.signal(signal.SIGTERM)
        return await self.ended()

    async def kill(self) -> None:
        """SIGKILL, its children as well."""
        if self.running:
            os.killpg(self._process.pid, signal.SIGKILL)
            await self._process.wait()
