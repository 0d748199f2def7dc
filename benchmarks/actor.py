"""A measured process: started, controlled by orders, and stopped."""

import asyncio
import contextlib
import json
import os
import signal
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

__all__ = ["Actor", "RunFailed", "descendants", "resident"]

ROOT = Path(__file__).parents[1]
READY = 40.0
"""Seconds for an actor to connect; a Celery worker needs five."""
ANSWER = 240.0
"""Seconds for one order; a million messages are published in several smaller orders."""
PAGE = os.sysconf("SC_PAGE_SIZE")


class RunFailed(Exception):
    """An actor's failure: it ended, or gave a wrong answer or none. The figures are invalid."""


class Actor:
    """One measured process, as a context manager.

    `async with Actor("aio-pika server", [...], {...}) as actor: await actor.tell("rpc", seconds=1)`
    """

    def __init__(self, name: str, command: Sequence[str], environment: Mapping[str, str]) -> None:
        """Set the command; `environment` is added to this process's own."""
        self.name = name
        self._command = command
        self._environment = {
            "BUS_AUTH": "off",
            **os.environ,
            **environment,
            "PYTHONPATH": str(ROOT),
        }
        self._process: asyncio.subprocess.Process | None = None
        self._complaints = tempfile.TemporaryFile()  # noqa: SIM115 - open until the process ends

    async def __aenter__(self) -> Self:
        self._process = await asyncio.create_subprocess_exec(
            *self._command,
            env=self._environment,
            cwd=ROOT,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=self._complaints,
            start_new_session=True,
        )
        try:
            await self._heard(READY)  # its first line reports that it is ready
        except BaseException:
            await self.stop()
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.stop()

    @property
    def pid(self) -> int:
        """The process id."""
        return self._running.pid

    @property
    def pids(self) -> list[int]:
        """The ids of the process and its children: a worker may fork."""
        return [self.pid, *descendants(self.pid)]

    @property
    def _running(self) -> asyncio.subprocess.Process:
        if self._process is None:
            raise RunFailed(f"{self.name} is not started")
        return self._process

    async def tell(self, verb: str, **words: object) -> dict[str, Any]:
        """Send one order and return its result; raise `RunFailed` if the result is an error."""
        line = " ".join([verb, *(f"{key}={value}" for key, value in words.items())])
        stdin = self._running.stdin
        if stdin is None:
            raise RunFailed(f"{self.name} has no standard input")
        stdin.write(f"{line}\n".encode())
        await stdin.drain()
        return await self._heard(ANSWER)

    async def _heard(self, timeout: float) -> dict[str, Any]:
        stdout = self._running.stdout
        if stdout is None:
            raise RunFailed(f"{self.name} has no standard output")
        try:
            line = await asyncio.wait_for(stdout.readline(), timeout)
        except TimeoutError:
            raise RunFailed(f"{self.name} gave no answer in {timeout:g} s{self._last()}") from None
        if not line:
            raise RunFailed(f"{self.name} ended{self._last()}")
        try:
            result: dict[str, Any] = json.loads(line)
        except ValueError:
            raise RunFailed(f"{self.name} must answer with JSON, but wrote {line!r}") from None
        if "error" in result:
            raise RunFailed(f"{self.name}: {result['error']}{self._last()}")
        return result

    def _last(self) -> str:
        """Return the last lines of its standard error."""
        self._complaints.seek(0)
        lines = self._complaints.read().decode(errors="replace").strip().splitlines()
        return "\n  ".join(["", *lines[-12:]])

    async def stop(self) -> None:
        """Kill the process: it has no state to save."""
        process = self._process
        if process is None or process.returncode is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # the children too
        await process.wait()


def descendants(pid: int) -> list[int]:
    """Return all descendants of a process; an empty list without Linux's /proc."""
    found: list[int] = []
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            for child in path.read_text(encoding="ascii").split():
                found += [int(child), *descendants(int(child))]
    return found


def resident(pid: int) -> float:
    """Return the resident megabytes (10^6 bytes) of a process; 0 without Linux's /proc."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1]) * PAGE / 1e6
    except (OSError, IndexError):
        return 0.0
