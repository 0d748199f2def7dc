"""A bus on the model broker, whose work a test can follow."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, Generic, TypeVar

from typing_extensions import override

from bus.contracts.contract import Job, JobClass, Message
from bus.errors import BusError
from bus.messaging.context import JobHandle
from bus.messaging.envelope import Envelope, Progress
from bus.messaging.failure_origin import mark_remote_cause
from bus.messaging.jobs.status import JobStatus
from bus.messaging.ports.store import Store
from bus.middleware.stacks import client_stack
from bus.runtime.bus import Bus
from bus.runtime.router import Router
from bus.runtime.service_parts import default_server_stack
from bus.settings import Settings
from bus.testing.work import Work, chain_causes, record_failures, record_sent
from bus.transports.memory import MemoryTransport

__all__ = ["ChainedJob", "MemoryBus"]

R = TypeVar("R", bound=Message | None)


class ChainedJob(Generic[R]):
    """A job handle whose error has the handler's exception as its `__cause__`."""

    def __init__(self, handle: JobHandle[R], work: Work) -> None:
        self._handle, self._work = handle, work

    @property
    def id(self) -> str:
        """The message id of the job."""
        return self._handle.id

    @property
    def type(self) -> str:
        """The type of the job, `<name>.v<version>`."""
        return self._handle.type

    @property
    def has_ended(self) -> bool:
        """True if the result, or the error of the job, has arrived."""
        return bool(getattr(self._handle, "has_ended", False))

    async def status(self) -> JobStatus:
        """Ask for the state of the job, as `JobHandle.status` does."""
        return await self._handle.status()

    async def cancel(self, *, reason: str = "") -> JobStatus:
        """Request the cancellation of the job, as `JobHandle.cancel` does."""
        return await self._handle.cancel(reason=reason)

    def updates(self, *, after: int = 0) -> AsyncIterator[Progress]:
        """Yield the progress updates of the job, as `JobHandle.updates` does."""
        return self._handle.updates(after=after)

    async def result(self, *, timeout: float | None = None) -> R:
        """Wait for the result of the job, as `JobHandle.result` does."""
        __tracebackhide__ = True
        try:
            return await self._handle.result(timeout=timeout)
        except BusError as error:
            cause = self._work.failures.get(self.id)
            if cause is None or error.__cause__ is not None:
                raise
            mark_remote_cause(error)
            raise error from cause


class MemoryBus(Bus):
    """A bus on a `MemoryBroker` that records its handlers, calls and failures in a `Work`."""

    def __init__(
        self,
        service: str,
        settings: Settings,
        transport: MemoryTransport,
        *,
        work: Work,
        store: Store | None = None,
        clock: Callable[[], float],
    ) -> None:
        super().__init__(
            service,
            settings=settings,
            transport=transport,
            client=[
                chain_causes(work, service),  # outermost: it also counts the waits of `retry`
                *client_stack(clock=clock),
                record_sent(work),  # innermost: the attributes are complete, the payload is plain
            ],
            server=[
                record_failures(work),  # outermost: it also receives `DeadlineExceeded`
                *default_server_stack(settings, clock),
            ],
            store=store,
            clock=clock,
        )
        self._work = work

    @override
    async def submit(self, job: Job[R], *, timeout: float | None = None) -> JobHandle[R]:
        return ChainedJob(await super().submit(job, timeout=timeout), self._work)

    @override
    def job(
        self,
        job: JobClass[Any, R],
        job_id: str,
        *,
        submitter: str | None = None,
    ) -> JobHandle[R]:
        return ChainedJob(super().job(job, job_id, submitter=submitter), self._work)

    @override
    @asynccontextmanager
    async def serving(self, router: Router) -> AsyncIterator[None]:
        for queue, endpoint in router.endpoints.items():
            function = endpoint.function
            name = getattr(function, "__qualname__", type(function).__qualname__)
            self._work.handlers[queue] = name
        async with super().serving(router):
            yield

    def decrypt(self, envelope: Envelope) -> Envelope:
        """Return the message with its payload decrypted by this service's keys."""
        return self._security.cipher.decrypt(envelope)
