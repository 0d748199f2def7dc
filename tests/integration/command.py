"""`bus` in a process of its own, as a person runs it."""

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
"""A worker loads its models in 2 s; on a crowded machine it has taken 50."""


@dataclass(frozen=True, kw_only=True)
class Ended:
    """How a command ended."""

    code: int | None
    out: str
    err: str


@asynccontextmanager
async def running(
    *arguments: str, program: str = "bus.cli", **environment: str
) -> AsyncIterator[asyncio.subprocess.Process]:
    """The command while the block lasts."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", program, *arguments),
        cwd=ROOT,
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
    """Before a program begins: a shell that starts the tests in the background has them, and all that they start, ignore keys."""
    for key in (signal.SIGINT, signal.SIGQUIT):
        signal.signal(key, signal.SIG_DFL)


async def ended(process: asyncio.subprocess.Process, seconds: float = 150) -> Ended:
    """What it printed, and its exit code, once it has ended by itself."""
    async with asyncio.timeout(seconds):
        out, err = await process.communicate()
    return Ended(code=process.returncode, out=out.decode(), err=err.decode())


async def bus(*arguments: str, **environment: str) -> Ended:
    """Run it to its end."""
    async with running(*arguments, **environment) as process:
        return await ended(process)
