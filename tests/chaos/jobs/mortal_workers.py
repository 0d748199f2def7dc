"""The test's side of `tests.chaos.jobs.mortals`: it starts, stops and awaits worker processes."""

import asyncio
import json
import os
import sys
from collections.abc import Mapping
from itertools import count
from types import TracebackType
from typing import Self

__all__ = ["MortalWorker", "MortalWorkers"]

START, STOP = 90.0, 60.0
"""Maximum seconds of a start and of a stop on a busy machine. A start takes 0.2 s."""


class MortalWorker:
    """One worker process."""

    def __init__(self, number: int) -> None:
        loop = asyncio.get_running_loop()
        self.number = number
        self.ready: asyncio.Future[bool] = loop.create_future()
        """True if the process serves. False if it has ended before."""
        self.ended: asyncio.Future[int] = loop.create_future()
        """The exit code, or the negative number of the signal."""


class MortalWorkers:
    """The worker processes of a test."""

    def __init__(self) -> None:
        self._workers: dict[int, MortalWorker] = {}
        self._numbers = count(1)
        self._process: asyncio.subprocess.Process | None = None
        self._reading: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "tests.chaos.jobs.mortals"),
            env={name: value for name, value in os.environ.items() if name[:4] != "BUS_"},
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        self._reading = asyncio.create_task(self._read(self._process), name="worker processes")
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        process = self._process
        assert process is not None
        assert process.stdin is not None
        process.stdin.close()
        await asyncio.wait_for(process.wait(), STOP)
        if self._reading is not None:
            await self._reading

    async def start(self, environment: Mapping[str, str]) -> MortalWorker:
        """Start a process, and wait until it serves.

        Raises:
            AssertionError: The process has ended before.
        """
        worker = MortalWorker(next(self._numbers))
        self._workers[worker.number] = worker
        self._say(f"start {worker.number} {json.dumps(dict(environment))}")
        is_ready = await asyncio.wait_for(asyncio.shield(worker.ready), START)
        assert is_ready, "a worker process has ended before it was ready"
        return worker

    async def stop(self, worker: MortalWorker) -> int:
        """Stop a process cleanly, and return its exit code."""
        if not worker.ended.done():
            self._say(f"stop {worker.number}")
        return await asyncio.wait_for(worker.ended, STOP)

    def _say(self, line: str) -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        self._process.stdin.write(f"{line}\n".encode())

    async def _read(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdout is not None
        async for line in process.stdout:
            word, number, *rest = line.decode().split()
            worker = self._workers[int(number)]
            if word == "ready":
                worker.ready.set_result(True)
            else:
                if not worker.ready.done():
                    worker.ready.set_result(False)
                worker.ended.set_result(int(rest[0]))
