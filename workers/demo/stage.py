"""What the demonstration plays on: a real RabbitMQ with each worker in a process of its own, or the model broker in this one."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Coroutine
from functools import partial
from typing import Any, Protocol
from uuid import UUID, uuid4

from pydantic import SecretStr
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type, wait_random_exponential

from bus import Bus, DeadlineExceeded, NotFound, NotServed, Sender, Settings, Unavailable
from bus.testing import MemoryBroker, MemoryTransport
from contracts.documentation.client import DocumentationClient
from contracts.transcription.client import TranscriptionClient
from workers import documents, transcription
from workers.demo.keys import DemoKeys
from workers.demo.process import WorkerProcess

__all__ = ["MemoryStage", "RabbitMQStage", "Stage", "served"]

WORKERS = {"transcription": "workers.transcription:router", "documentation": "workers.documents:router"}
UNUSED = SecretStr("amqp://unused/")
"""Settings want a broker's URL, and the model broker has none."""
START_TIMEOUT = 120.0
"""Seconds for the workers to load what they need, such as an acoustic model, and to consume; many times what they take."""


class Stage(Protocol):
    """Gives buses, and the reference application's workers, which serve inside a block."""

    def bus(self, service: str) -> Bus:
        """A bus for this service, not yet connected."""
        ...

    def workers(self) -> contextlib.AbstractAsyncContextManager[str]:
        """The workers while the block lasts; yields what they are, in a few words."""
        ...

    def check(self) -> None:
        """`Unavailable` where a worker has ended: nobody should wait for it."""
        ...


class RabbitMQStage:
    """On the RabbitMQ at `url`: with workers of its own, which get `keys`, or with those that run there."""

    def __init__(self, url: str, keys: DemoKeys | None) -> None:
        self._url = url
        self._keys = keys
        self._started: dict[str, WorkerProcess] = {}

    def bus(self, service: str) -> Bus:
        """A bus on this RabbitMQ."""
        known = self._keys.settings(service) if self._keys is not None else {}
        return Bus(service, settings=Settings(url=SecretStr(self._url), **known))

    @contextlib.asynccontextmanager
    async def workers(self) -> AsyncIterator[str]:
        """`bus run` for each, in processes of their own, which are stopped together."""
        if self._keys is None:
            yield "those that run at this broker"
            return
        try:
            for service, target in WORKERS.items():
                self._started[service] = await WorkerProcess.start(target, self._url, self._keys.environment(service))
            yield "processes " + ", ".join(f"{worker.pid} ({service})" for service, worker in self._started.items())
        finally:
            stopped = await asyncio.gather(*(worker.stop() for worker in self._started.values()), return_exceptions=True)
            for error in filter(None, stopped):
                raise error

    def check(self) -> None:
        """`Unavailable` where a worker has ended; its last words follow when it is stopped."""
        if any(worker.ended for worker in self._started.values()):
            raise Unavailable("a worker ended by itself")


class MemoryStage:
    """On the model broker, where no RabbitMQ can be had."""

    def __init__(self, keys: DemoKeys) -> None:
        self._broker = MemoryBroker()
        self._keys = keys

    def bus(self, service: str) -> Bus:
        """A bus on this model broker."""
        return Bus(service, settings=Settings(url=UNUSED, **self._keys.settings(service)), transport=MemoryTransport(self._broker))

    @contextlib.asynccontextmanager
    async def workers(self) -> AsyncIterator[str]:
        """The workers in this process."""
        async with contextlib.AsyncExitStack() as stack:
            for router in (transcription.router, documents.router):
                bus = await stack.enter_async_context(self.bus(router.name))
                await stack.enter_async_context(bus.serving(router))
            yield "both routers, in this process"

    def check(self) -> None:
        """They live as long as this process."""


async def served(bus: Sender, check: Callable[[], None]) -> None:
    """Returns when both workers answer; `Unavailable` after `START_TIMEOUT` seconds, or what `check` raises."""
    try:
        async with asyncio.timeout(START_TIMEOUT):
            await _answered(partial(TranscriptionClient(bus).get, timeout=2), check)
            await _answered(partial(DocumentationClient(bus).status, timeout=2), check)
    except TimeoutError:
        raise Unavailable(f"a worker did not answer within {START_TIMEOUT:.0f} s") from None


async def _answered(ask: Callable[[UUID], Coroutine[Any, Any, object]], check: Callable[[], None]) -> None:
    def before_sleep(_state: RetryCallState) -> None:
        check()

    attempts = AsyncRetrying(
        retry=retry_if_exception_type((NotServed, DeadlineExceeded)),  # not there yet, or too busy starting to answer in time
        wait=wait_random_exponential(multiplier=0.1, max=1),
        before_sleep=before_sleep,
    )
    with contextlib.suppress(NotFound):  # the worker answered: it has no such record
        async for attempt in attempts:
            with attempt:
                await ask(uuid4())
