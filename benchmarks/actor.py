"""One process that is measured: started, told what to do, ended."""

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
"""Seconds for an actor to connect; a Celery worker takes five."""
ANSWER = 240.0
"""Seconds for one order; the filling of a queue with a million messages is cut into smaller ones."""
PAGE = os.sysconf("SC_PAGE_SIZE")


class RunFailed(Exception):
    """An actor ended, answered wrongly or not at all: the figures would not be worth anything."""


class Actor:
    """`async with Actor("aio-pika server", [...], {...}) as actor: await actor.tell("rpc", seconds=1)`."""

    def __init__(self, name: str, command: Sequence[str], environment: Mapping[str, str]) -> None:
        """`environment` is added to this process's own."""
        self.name = name
        self._command = command
        self._environment = {"BUS_AUTH": "off", **os.environ, **environment, "PYTHONPATH": str(ROOT)}
        self._process: asyncio.subprocess.Process | None = None
        self._complaints = tempfile.TemporaryFile()  # noqa: SIM115 - it lives as long as the process

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
            await self._heard(READY)  # its first line says that it is ready
        except BaseException:
            await self.stop()
            raise
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self.stop()

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._running.pid

    @property
    def pids(self) -> list[int]:
        """Itself and its children: a worker may fork."""
        return [self.pid, *descendants(self.pid)]

    @property
    def _running(self) -> asyncio.subprocess.Process:
        if self._process is None:
            raise RunFailed(f"{self.name} was not started")
        return self._process

    async def tell(self, verb: str, **words: object) -> dict[str, Any]:
        """Give one order and wait for its result; `RunFailed` where it is an error."""
        line = " ".join([verb, *(f"{key}={value}" for key, value in words.items())])
        stdin = self._running.stdin
        if stdin is None:
            raise RunFailed(f"{self.name} cannot be told anything")
        stdin.write(f"{line}\n".encode())
        await stdin.drain()
        return await self._heard(ANSWER)

    async def _heard(self, timeout: float) -> dict[str, Any]:
        stdout = self._running.stdout
        if stdout is None:
            raise RunFailed(f"{self.name} cannot answer")
        try:
            line = await asyncio.wait_for(stdout.readline(), timeout)
        except TimeoutError:
            raise RunFailed(f"{self.name}: no answer within {timeout:g} s{self._last()}") from None
        if not line:
            raise RunFailed(f"{self.name} ended{self._last()}")
        try:
            result: dict[str, Any] = json.loads(line)
        except ValueError:
            raise RunFailed(f"{self.name} said {line!r}") from None
        if "error" in result:
            raise RunFailed(f"{self.name}: {result['error']}{self._last()}")
        return result

    def _last(self) -> str:
        """The end of what it wrote to its standard error."""
        self._complaints.seek(0)
        lines = self._complaints.read().decode(errors="replace").strip().splitlines()
        return "\n  ".join(["", *lines[-12:]])

    async def stop(self) -> None:
        """End it: it holds nothing worth keeping."""
        process = self._process
        if process is None or process.returncode is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # its children, too
        await process.wait()


def descendants(pid: int) -> list[int]:
    """Children and theirs, as Linux's /proc has them; empty elsewhere."""
    found: list[int] = []
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            for child in path.read_text(encoding="ascii").split():
                found += [int(child), *descendants(int(child))]
    return found


def resident(pid: int) -> float:
    """Megabytes (10^6 bytes) of memory in use by a process, as Linux's /proc has it; 0 elsewhere."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1]) * PAGE / 1e6
    except (OSError, IndexError):
        return 0.0
