"""A worker in a process of its own, as `bus run` starts it."""

import asyncio
import os
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO, Self

from bus import Unavailable

__all__ = ["WorkerProcess"]

STOP_TIMEOUT = 10.0
"""Seconds for a worker to stop cleanly; it has nothing left to do then."""


class WorkerProcess:
    """Serves a router until it is stopped; its log is shown where it dies."""

    def __init__(self, target: str, process: asyncio.subprocess.Process, log: BinaryIO) -> None:
        self._target = target
        self._process = process
        self._log = log
        self._ended = asyncio.ensure_future(process.wait())

    @classmethod
    async def start(cls, target: str, url: str, environment: Mapping[str, str]) -> Self:
        """`bus run` of this router, on the broker at `url`; it may not serve yet."""
        log = tempfile.TemporaryFile()  # noqa: SIM115 - closed by `stop`
        try:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "bus.cli", "run", target),
                cwd=Path(__file__).parents[2],
                env={**_environment(), "BUS_URL": url, "BUS_LOG_FORMAT": "console", **environment},
                stderr=log,
                start_new_session=True,
            )
        except BaseException:
            log.close()
            raise
        return cls(target, process, log)

    @property
    def pid(self) -> int:
        """The system's number for it."""
        return self._process.pid

    @property
    def ended(self) -> bool:
        """Whether it runs no more."""
        return self._ended.done()

    async def stop(self) -> None:
        """Stop it cleanly, and kill it where it takes too long; `Unavailable` where it had ended by itself."""
        died = self._ended.done()
        if not died:
            self._process.terminate()
        await asyncio.wait({self._ended}, timeout=STOP_TIMEOUT)
        if not self._ended.done():
            self._process.kill()
            await self._ended
        with self._log:
            if died:
                raise Unavailable(f"a worker ended by itself (bus run {self._target}): {_last_line(self._log)}")


def _environment() -> dict[str, str]:
    """This process's, without the port for health probes: somebody else may have it, and nobody asks a demonstration."""
    return {name: value for name, value in os.environ.items() if name != "BUS_HEALTH_PORT"}  # noqa: TID251 - for a child


def _last_line(log: BinaryIO) -> str:
    log.seek(0)
    lines = log.read().decode(errors="replace").split("\n")
    return next((line for line in reversed(lines) if line.strip()), "it said nothing")
