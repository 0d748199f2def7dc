"""Stages of the demonstration.

A stage is a real RabbitMQ with each worker in its own process, or the model broker in this process.
"""

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

WORKERS = {
    "transcription": "workers.transcription:router",
    "documentation": "workers.documents:router",
}
UNUSED = SecretStr("amqp://unused/")
"""Placeholder, because the settings require a broker URL and the model broker has none."""
START_TIMEOUT = 120.0
"""Seconds for the workers to load their models and to consume, many times the usual duration."""


class Stage(Protocol):
    """Source of buses, and of the reference application's workers, which serve inside a block."""

    def bus(self, service: str) -> Bus:
        """Return a bus for this service, not yet connected."""
        ...

    def workers(self) -> contextlib.AbstractAsyncContextManager[str]:
        """Run the workers inside the block, and yield a short description of them."""
        ...

    def check(self) -> None:
        """Raise `Unavailable` if a worker has ended, because it would never answer."""
        ...


class RabbitMQStage:
    """Stage on the RabbitMQ at `url`.

    It starts its own workers with `keys`, or uses the workers that run there if `keys` is None.
    """

    def __init__(self, url: str, keys: DemoKeys | None) -> None:
        self._url = url
        self._keys = keys
        self._started: dict[str, WorkerProcess] = {}

    def bus(self, service: str) -> Bus:
        """Return a bus on this RabbitMQ."""
        known = self._keys.settings(service) if self._keys is not None else {}
        return Bus(service, settings=Settings(url=SecretStr(self._url), **known))

    @contextlib.asynccontextmanager
    async def workers(self) -> AsyncIterator[str]:
        """Start `bus run` for each worker in its own process, and stop all of them together."""
        if self._keys is None:
            yield "those that run at this broker"
            return
        try:
            for service, target in WORKERS.items():
                self._started[service] = await WorkerProcess.start(
                    target, self._url, self._keys.environment(service)
                )
            yield "processes " + ", ".join(
                f"{worker.pid} ({service})" for service, worker in self._started.items()
            )
        finally:
            stopped = await asyncio.gather(
                *(worker.stop() for worker in self._started.values()), return_exceptions=True
            )
            for error in filter(None, stopped):
                raise error

    def check(self) -> None:
        """Raise `Unavailable` if a worker has ended.

        `workers` then raises an error with the worker's last log line.
        """
        if any(worker.ended for worker in self._started.values()):
            raise Unavailable("a worker ended by itself. Check its log.")


class MemoryStage:
    """Stage on the model broker, for a machine without RabbitMQ."""

    def __init__(self, keys: DemoKeys) -> None:
        self._broker = MemoryBroker()
        self._keys = keys

    def bus(self, service: str) -> Bus:
        """Return a bus on this model broker."""
        return Bus(
            service,
            settings=Settings(url=UNUSED, **self._keys.settings(service)),
            transport=MemoryTransport(self._broker),
        )

    @contextlib.asynccontextmanager
    async def workers(self) -> AsyncIterator[str]:
        """Run the workers in this process."""
        async with contextlib.AsyncExitStack() as stack:
            for router in (transcription.router, documents.router):
                bus = await stack.enter_async_context(self.bus(router.name))
                await stack.enter_async_context(bus.serving(router))
            yield "both routers, in this process"

    def check(self) -> None:
        """Do nothing, because these workers run for the lifetime of this process."""


async def served(bus: Sender, check: Callable[[], None]) -> None:
    """Return when both workers answer.

    Raise `Unavailable` after `START_TIMEOUT` seconds, or the error that `check` raises.
    """
    try:
        async with asyncio.timeout(START_TIMEOUT):
            await _answered(partial(TranscriptionClient(bus).get, timeout=2), check)
            await _answered(partial(DocumentationClient(bus).status, timeout=2), check)
    except TimeoutError:
        problem = f"a worker did not answer within {START_TIMEOUT:.0f} s"
        raise Unavailable(f"{problem}. Check that both workers run at this broker.") from None


async def _answered(
    ask: Callable[[UUID], Coroutine[Any, Any, object]], check: Callable[[], None]
) -> None:
    def before_sleep(_state: RetryCallState) -> None:
        check()

    attempts = AsyncRetrying(
        retry=retry_if_exception_type(
            (NotServed, DeadlineExceeded)
        ),  # not started, or too busy to answer
        wait=wait_random_exponential(multiplier=0.1, max=1),
        before_sleep=before_sleep,
    )
    with contextlib.suppress(NotFound):  # the worker answered: it has no such record
        async for attempt in attempts:
            with attempt:
                await ask(uuid4())
