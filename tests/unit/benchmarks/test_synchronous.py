"""Tests of the benchmark of `SyncBus`: its worker never makes it wait forever."""

import asyncio
import sys
from asyncio.subprocess import PIPE, Process

import pytest

from benchmarks import synchronous


async def program(code: str) -> Process:
    """Start a Python program that takes the place of the worker."""
    return await asyncio.create_subprocess_exec(sys.executable, "-S", "-c", code, stdout=PIPE)


async def test_a_worker_that_ends_is_an_error_with_its_output() -> None:
    process = await program("print('no broker')")
    with pytest.raises(RuntimeError, match=r"not ready.*\nno broker"):
        await synchronous.wait_ready(process)
    assert await process.wait() == 0
    await synchronous.stop(process)


async def test_a_worker_that_is_silent_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    process = await program(
        "import signal; signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM});"
        "print('blocked', flush=True); signal.pause()"
    )
    assert process.stdout is not None
    assert await process.stdout.readline() == b"blocked\n"
    monkeypatch.setattr(synchronous, "START_SECONDS", 0.05)
    monkeypatch.setattr(synchronous, "STOP_SECONDS", 0.1)
    with pytest.raises(RuntimeError, match="not ready"):
        await synchronous.wait_ready(process)
    await synchronous.stop(process)
    assert await process.wait() == -9
