"""The command `bus` in a separate process, as a person runs it."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PATIENT = {"BUS_START_TIMEOUT": "120", "TRANSCRIPTION_START_TIMEOUT": "100"}
"""Settings with long start timeouts: a worker loads its models in 2 s, or in 50 s under load."""


@dataclass(frozen=True, kw_only=True)
class Ended:
    """The exit code and the output of a command."""

    code: int | None
    out: str
    err: str


@asynccontextmanager
async def running(
    *arguments: str, program: str = "bus.cli", **environment: str
) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run a command, and kill it at the end of the block."""
    async with running_in(ROOT, program, *arguments, **environment) as process:
        yield process


@asynccontextmanager
async def running_in(
    folder: Path, program: str, *arguments: str, **environment: str
) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run a program in another working directory, and kill it at the end of the block."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", program, *arguments),
        cwd=folder,
        env={**os.environ, **PATIENT, "COLUMNS": "200", **environment},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        preexec_fn=interruptible,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


def interruptible() -> None:
    """Let the new process react to SIGINT and SIGQUIT.

    A shell that starts the tests in the background makes them, and all their children, ignore both
    signals.
    """
    for key in (signal.SIGINT, signal.SIGQUIT):
        signal.signal(key, signal.SIG_DFL)


async def ended(process: asyncio.subprocess.Process, seconds: float = 150) -> Ended:
    """Wait until a command ends by itself, and return its output and exit code."""
    async with asyncio.timeout(seconds):
        out, err = await process.communicate()
    return Ended(code=process.returncode, out=(out or b"").decode(), err=err.decode())


async def bus(*arguments: str, **environment: str) -> Ended:
    """Run a command to its end."""
    async with running(*arguments, **environment) as process:
        return await ended(process)
