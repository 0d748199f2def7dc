"""What the demonstration plays on: a real RabbitMQ with each worker in a process of its own, or the model broker in this one."""

import asyncio
import contextlib
import os
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Coroutine
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, Protocol
from uuid import UUID, uuid4

from pydantic import SecretStr

from bus import Bus, NotFound, NotServed, Settings, Unavailable
from bus.recovery import backoff
from bus.transports.memory import MemoryBroker, MemoryTransport
from contracts.documentation.client import DocumentationClient
from contracts.transcription.client import TranscriptionClient
from workers import documents, transcription

__all__ = ["MemoryStage", "RabbitMQStage", "Stage", "served"]

WORKERS = {"transcription": "workers.transcription:router", "documents": "workers.documents:router"}
UNUSED = SecretStr("amqp://unused/")
"""Settings want a broker's URL, and the model broker has none."""
START_TIMEOUT = 30.0
"""Seconds for the workers to load what they need, such as an acoustic model, and to consume."""
STOP_TIMEOUT = 10.0
"""Seconds for a worker to stop cleanly; it has nothing left to do then."""


class Stage(Protocol):
    """Gives buses, and the reference application's workers, which serve inside a block."""

    def bus(self, service: str) -> Bus:
        """A bus for this service, not yet connected."""
        ...

    def workers(self) -> contextlib.AbstractAsyncContextManager[str]:
        """The workers while the block lasts; yields what they are, in a few words."""
        ...


class RabbitMQStage:
    """On the RabbitMQ at `url`."""

    def __init__(self, url: str) -> None:
        self._url = url

    def bus(self, service: str) -> Bus:
        """A bus on this RabbitMQ."""
        return Bus(service, settings=Settings(url=SecretStr(self._url)))

    @contextlib.asynccontextmanager
    async def workers(self) -> AsyncIterator[str]:
        """`bus run` for each, in processes of their own; the log is shown of one that dies."""
        async with contextlib.AsyncExitStack() as stack:
            pids = [await stack.enter_async_context(self._worker(target)) for target in WORKERS.values()]
            yield "processes " + ", ".join(f"{pid} ({service})" for pid, service in zip(pids, WORKERS, strict=True))

    @contextlib.asynccontextmanager
    async def _worker(self, target: str) -> AsyncIterator[int]:
        with tempfile.TemporaryFile() as log:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "bus.cli", "run", target),
                cwd=Path(__file__).parents[2],
                env={**os.environ, "BUS_URL": self._url, "BUS_LOG_FORMAT": "console"},
                stderr=log,
                start_new_session=True,
            )
            ended = asyncio.ensure_future(process.wait())
            try:
                yield process.pid
            finally:
                died = ended.done()
                if not died:
                    process.terminate()
                await asyncio.wait({ended}, timeout=STOP_TIMEOUT)
                if not ended.done():
                    process.kill()
                if died:
                    raise Unavailable(f"a worker ended by itself (bus run {target}): {_last_line(log)}")


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
    async def workers(self) -> AsyncIterator[str]:
        """The workers in this process."""
        async with contextlib.AsyncExitStack() as stack:
            for router in (transcription.router, documents.router):
                bus = await stack.enter_async_context(self.bus(router.name))
                await stack.enter_async_context(bus.serving(router))
            yield "both routers, in this process"


async def served(bus: Bus) -> None:
    """Returns when both workers answer; `Unavailable` after `START_TIMEOUT` seconds."""
    try:
        async with asyncio.timeout(START_TIMEOUT):
            await _answered(partial(TranscriptionClient(bus).get, timeout=2))
            await _answered(partial(DocumentationClient(bus).status, timeout=2))
    except TimeoutError:
        raise Unavailable(f"a worker did not answer within {START_TIMEOUT:.0f} s") from None


async def _answered(ask: Callable[[UUID], Coroutine[Any, Any, object]]) -> None:
    attempt = 0
    while True:
        attempt += 1
        try:
            await ask(uuid4())
        except NotFound:
            return  # somebody looked, and there is none: just what we asked for
        except NotServed:
            await asyncio.sleep(backoff(attempt))
