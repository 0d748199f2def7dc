"""What the demonstration plays on: a real RabbitMQ with the worker in a process of its own, or the model broker in this one."""

import asyncio
import contextlib
import os
import sys
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import BinaryIO, Protocol
from uuid import uuid4

from pydantic import SecretStr

from bus import Bus, NotFound, NotServed, Settings, Unavailable
from bus.recovery import backoff
from bus.transports.memory import MemoryBroker, MemoryTransport
from contracts.transcription.v1 import GetTranscript
from workers.transcription import router

__all__ = ["MemoryStage", "RabbitMQStage", "Stage", "served"]

WORKER = "workers.transcription:router"
UNUSED = SecretStr("amqp://unused/")
"""Settings want a broker's URL, and the model broker has none."""
START_TIMEOUT = 30.0
"""Seconds for the worker to load its acoustic model and to consume."""
STOP_TIMEOUT = 10.0
"""Seconds for the worker to stop cleanly; it has nothing left to do then."""


class Stage(Protocol):
    """Gives buses, and a transcription worker that serves inside a block."""

    def bus(self, service: str) -> Bus:
        """A bus for this service, not yet connected."""
        ...

    def worker(self) -> contextlib.AbstractAsyncContextManager[str]:
        """A worker while the block lasts; yields what it is, in a few words."""
        ...


class RabbitMQStage:
    """On the RabbitMQ at `url`, with a worker of its own or with those that run there."""

    def __init__(self, url: str, *, own_worker: bool = True) -> None:
        self._url = url
        self._own_worker = own_worker

    def bus(self, service: str) -> Bus:
        """A bus on this RabbitMQ."""
        return Bus(service, settings=Settings(url=SecretStr(self._url)))

    @contextlib.asynccontextmanager
    async def worker(self) -> AsyncIterator[str]:
        """`bus run` in a process of its own; its log is shown where it dies."""
        if not self._own_worker:
            yield "one that runs at this broker"
            return
        with tempfile.TemporaryFile() as log:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "bus.cli", "run", WORKER),
                cwd=Path(__file__).parents[2],
                env={**_environment(), "BUS_URL": self._url, "BUS_LOG_FORMAT": "console"},
                stderr=log,
                start_new_session=True,
            )
            ended = asyncio.ensure_future(process.wait())
            try:
                yield f"process {process.pid}: bus run {WORKER}"
            finally:
                died = ended.done()
                if not died:
                    process.terminate()
                await asyncio.wait({ended}, timeout=STOP_TIMEOUT)
                if not ended.done():
                    process.kill()
                if died:
                    raise Unavailable(f"the worker ended by itself: {_last_line(log)}")


def _environment() -> dict[str, str]:
    """This process's, without the port for health probes: somebody else may have it, and nobody asks a demonstration."""
    return {name: value for name, value in os.environ.items() if name != "BUS_HEALTH_PORT"}


def _last_line(log: BinaryIO) -> str:
    log.seek(0)
    lines = log.read().decode(errors="replace").split("\n")
    return next((line for line in reversed(lines) if line.strip()), "it said nothing")


class MemoryStage:
    """On the model broker, where no RabbitMQ can be had."""

    def __init__(self) -> None:
        self._broker = MemoryBroker()

    def bus(self, service: str) -> Bus:
        """A bus on this model broker."""
        return Bus(service, settings=Settings(url=UNUSED), transport=MemoryTransport(self._broker))

    @contextlib.asynccontextmanager
    async def worker(self) -> AsyncIterator[str]:
        """The worker in this process."""
        async with self.bus("transcription") as bus, bus.serving(router):
            yield "the worker's router, in this process"


async def served(bus: Bus) -> None:
    """Returns when the worker answers; `Unavailable` after `START_TIMEOUT` seconds."""
    attempt = 0
    try:
        async with asyncio.timeout(START_TIMEOUT):
            while True:
                attempt += 1
                try:
                    await bus.request(GetTranscript(transcript_id=uuid4()), timeout=2)
                except NotFound:
                    return  # somebody looked, and there is none: just what we asked for
                except NotServed:
                    await asyncio.sleep(backoff(attempt))
    except TimeoutError:
        raise Unavailable(f"the worker did not answer within {START_TIMEOUT:.0f} s") from None
