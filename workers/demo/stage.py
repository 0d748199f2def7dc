"""Stages on which the demonstration runs.

A stage consists of a broker and the workers. The broker is a real RabbitMQ or the model broker in
memory. With RabbitMQ, each worker is a process. With the model broker, all workers run in this
process.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Coroutine
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from typing import Any, Protocol

from pydantic import SecretStr
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type, wait_random_exponential

from bus import Bus, DeadlineExceeded, NotServed, Router, Sender, Settings, Unavailable
from bus.testing import MemoryBroker, MemoryStore, MemoryTransport
from workers.demo.keys import DemoKeys
from workers.demo.process import ABORT_TIMEOUT, STOP_TIMEOUT, WorkerProcess, output_of
from workers.demo.stores import opened_stores, packages_of_stores
from workers.demo.watch import (
    POLL_INTERVAL,
    CountConsumers,
    answer_of,
    watch_broker,
    watch_services,
    watched,
)

__all__ = ["MemoryStage", "RabbitMQStage", "Stage", "runnable_services", "served"]

WORKERS = {
    "transcription": "workers.transcription:router",
    "documentation": "workers.documents:router",
}
SPEECH_PACKAGE = "pocketsphinx"
"""Package without which the transcription worker cannot run. Some Pythons have no wheel of it."""
UNUSED = SecretStr("amqp://unused/")
"""Placeholder URL. The settings require a URL, but the model broker does not have one."""
START_TIMEOUT = 120.0
"""Seconds in which the workers must load their models and start to consume.

The limit is many times the usual duration.
"""
ANSWER_TIMEOUT = 30.0
"""Seconds in which the workers must answer that another program has started before."""


def runnable_services() -> tuple[str, ...]:
    """Return the services that have a worker on this machine.

    The transcription worker is left out if the package for speech recognition is not installed.
    """
    return tuple(
        service
        for service in WORKERS
        if service != "transcription" or find_spec(SPEECH_PACKAGE) is not None
    )


class Stage(Protocol):
    """Broker with the workers of the reference application.

    A stage creates buses for the broker, and runs the workers inside a block.
    """

    services: tuple[str, ...]
    """The services that have a worker on this stage."""
    start_timeout: float
    """Seconds in which the workers must answer."""
    can_cancel: bool
    """True if the workers have a store, so jobs can be cancelled."""
    can_restart: bool
    """True if the stage can kill a worker and start it again."""

    def bus(self, service: str) -> Bus:
        """Return a bus for this service, not yet connected."""
        ...

    def workers(self) -> contextlib.AbstractAsyncContextManager[str]:
        """Run the workers inside the block, and yield a short description of them."""
        ...

    def check(self) -> None:
        """Raise `Unavailable` if a worker has ended, because that worker will never answer."""
        ...

    async def watch(self, bus: Bus) -> None:
        """Raise `Unavailable` when a worker or the broker has ended. Never return."""
        ...

    async def restart(self, service: str) -> None:
        """Kill the worker of a service by SIGKILL, and start it again. Do not wait for it."""
        ...

    async def ask(self, job_id: str) -> str:
        """Return the text of a job's transcript, which another process asks for."""
        ...


class RabbitMQStage:
    """Stage on the RabbitMQ at `url`.

    With `keys` the stage starts its own workers. If `keys` is None, it uses the workers that
    already run at this broker. `count_consumers` tells whether such a worker still runs.
    """

    def __init__(
        self, url: str, keys: DemoKeys | None, count_consumers: CountConsumers | None = None
    ) -> None:
        self.services = tuple(WORKERS) if keys is None else runnable_services()
        self.start_timeout = ANSWER_TIMEOUT if keys is None else START_TIMEOUT
        self._url = url
        self._keys = keys
        self._count_consumers = count_consumers or _unknown
        self._started: dict[str, WorkerProcess] = {}
        self.can_cancel = self.can_restart = keys is not None and packages_of_stores()
        self._stores: dict[str, str] = {}

    def bus(self, service: str) -> Bus:
        """Return a bus for this service on this RabbitMQ, not yet connected."""
        known = self._keys.settings(service) if self._keys is not None else {}
        settings = Settings(url=SecretStr(self._url), store=SecretStr("memory"), **known)
        return Bus(service, settings=settings)

    @contextlib.asynccontextmanager
    async def workers(self) -> AsyncIterator[str]:
        """Start a process with `bus run` for each worker, and stop all processes at the end."""
        if self._keys is None:
            yield "those that run at this broker"
            return
        async with contextlib.AsyncExitStack() as stack:
            if self.can_cancel:
                self._stores = await stack.enter_async_context(opened_stores(self.services))
            await stack.enter_async_context(self._processes())
            yield "processes " + ", ".join(
                f"{worker.pid} ({service})" for service, worker in self._started.items()
            )

    @contextlib.asynccontextmanager
    async def _processes(self) -> AsyncIterator[None]:
        timeout = ABORT_TIMEOUT
        try:
            for service in self.services:
                await self._start(service)
            yield
            timeout = STOP_TIMEOUT
        finally:
            stopped = await asyncio.gather(
                *(worker.stop(timeout) for worker in self._started.values()), return_exceptions=True
            )
            for error in filter(None, stopped):
                raise error

    async def _start(self, service: str) -> None:
        self._started[service] = await WorkerProcess.start(
            WORKERS[service], self._url, {**self._environment(service), **self._stores}
        )

    def _environment(self, service: str) -> dict[str, str]:
        return {} if self._keys is None else self._keys.environment(service)

    async def restart(self, service: str) -> None:
        """Kill the worker of a service by SIGKILL, and start it again. Do not wait for it."""
        worker = self._started.pop(service)  # `check` must not report its end
        await worker.kill()
        await self._start(service)

    async def ask(self, job_id: str) -> str:
        """Return the text of a job's transcript, which another process asks for.

        Raise `Unavailable` if that process fails.
        """
        environment = {**self._environment("demo"), "BUS_URL": self._url}
        return await output_of("workers.demo.ask", job_id, environment=environment)

    def check(self) -> None:
        """Raise `Unavailable` if a worker has ended.

        When the block of `workers` ends, an error with the worker's last log line replaces this
        error.
        """
        if any(worker.ended for worker in self._started.values()):
            raise Unavailable("a worker ended by itself. Check its log.")

    async def watch(self, bus: Bus) -> None:
        """Raise `Unavailable` when a worker or the broker has ended. Never return."""
        own = (
            self._check_repeatedly()
            if self._keys
            else watch_services(bus, self.services, self._count_consumers)
        )
        await watched(watch_broker(bus), own)

    async def _check_repeatedly(self) -> None:
        while True:
            self.check()
            await asyncio.sleep(POLL_INTERVAL)


async def _unknown(_queue: str) -> None:
    """Return None, because this stage cannot count consumers."""


class MemoryStage:
    """Stage on the model broker, for a machine without RabbitMQ."""

    def __init__(self, keys: DemoKeys) -> None:
        self.services = runnable_services()
        self.start_timeout = START_TIMEOUT
        self.can_cancel, self.can_restart = True, False
        self._broker = MemoryBroker()
        self._keys = keys

    def bus(self, service: str, store: MemoryStore | None = None) -> Bus:
        """Return a bus for this service on this model broker, not yet connected."""
        settings = Settings(url=UNUSED, store=SecretStr("memory"), **self._keys.settings(service))
        transport = MemoryTransport(self._broker)
        return Bus(service, settings=settings, transport=transport, store=store)

    @contextlib.asynccontextmanager
    async def workers(self) -> AsyncIterator[str]:
        """Run the workers in this process."""
        async with contextlib.AsyncExitStack() as stack:
            for service in self.services:
                module, _, name = WORKERS[service].partition(":")
                router: Router = getattr(import_module(module), name)
                # The store ends with this process, and shows how a job is cancelled.
                bus = await stack.enter_async_context(self.bus(router.name, MemoryStore()))
                await stack.enter_async_context(bus.serving(router))
            yield f"in this process ({', '.join(self.services)})"

    def check(self) -> None:
        """Do nothing, because workers in this process cannot end before it."""

    async def watch(self, bus: Bus) -> None:  # noqa: ARG002 - required by `Stage`
        """Wait forever, because the model broker and its workers cannot end."""
        await asyncio.Event().wait()

    async def restart(self, service: str) -> None:
        """Raise `Unavailable`, because the workers run in this process."""
        raise Unavailable(f"{service} runs in this process, and cannot be killed alone.")

    async def ask(self, job_id: str) -> str:
        """Raise `Unavailable`, because no other process can reach the model broker."""
        raise Unavailable(f"no other process can ask for the job {job_id}.")


async def served(
    bus: Sender,
    services: tuple[str, ...],
    check: Callable[[], None],
    timeout: float = START_TIMEOUT,
) -> None:
    """Wait until the workers of these services answer requests.

    Raise `Unavailable` if a worker does not answer within `timeout` seconds. `check` is called
    between two attempts, and its error ends the wait.
    """
    try:
        async with asyncio.timeout(timeout):
            for service in services:
                await _answered(partial(answer_of, bus, service), check)
    except TimeoutError:
        problem = f"a worker did not answer within {timeout:.0f} s"
        raise Unavailable(f"{problem}. Check that the workers run at this broker.") from None


async def _answered(
    ask: Callable[[], Coroutine[Any, Any, None]], check: Callable[[], None]
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
    async for attempt in attempts:
        with attempt:
            await ask()
