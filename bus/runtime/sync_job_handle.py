"""The handle with which synchronous code reads the progress and the result of a job."""

from collections.abc import Callable, Coroutine, Iterator
from typing import Any, Generic, TypeVar, cast

from bus.contracts.contract import Message
from bus.errors import ConnectionLost, FailedPrecondition
from bus.messaging.context import JobHandle
from bus.messaging.envelope import Progress
from bus.messaging.jobs.status import JobStatus
from bus.runtime.error_subject import add_subject
from bus.runtime.sync_session import Session, limit_of, refuse_event_loop

__all__ = ["SyncJobHandle"]

R = TypeVar("R", bound=Message | None)
T = TypeVar("T")


class SyncJobHandle(Generic[R]):
    """The handle of a job that a `SyncBus` has submitted, or that `SyncBus.job` returned.

    The handle receives updates until the bus is closed. The job continues also after that. A forked
    process cannot use the handle of its parent.
    """

    def __init__(self, handle: JobHandle[R], session: Session, bus: object) -> None:
        """Create the handle. `SyncBus.submit` does this.

        Args:
            handle: The handle of the bus in the background loop.
            session: The session in which the job was submitted.
            bus: The `SyncBus`, which is closed if no object refers to it.
        """
        self._handle = handle
        self._session = session
        self._bus = bus

    @property
    def id(self) -> str:
        """The message id of the job."""
        return self._handle.id

    @property
    def type(self) -> str:
        """The type of the job, `<name>.v<version>`."""
        return self._handle.type

    def status(self) -> JobStatus:
        """Ask the service of the job for its state. The service must have a durable store.

        Raises:
            NotFound: The service has no such job. Or this service has not submitted the job, and
                has no right to read it.
            FailedPrecondition: The job with this id has another type. Or a parent process submitted
                the job, or an event loop runs in this thread.
            Unavailable: The service does not answer in time, or has no durable store. Or one of its
                instances has not recorded yet what it received, and can hold the job.
        """
        return self._run(self._handle.status, None)

    def cancel(self, *, reason: str = "") -> JobStatus:
        """Request the cancellation of the job, and return its state after that.

        A job that waits is cancelled at once. A running handler is asked to end, and is cancelled
        after a grace period. A job that has ended does not change.

        Args:
            reason: Text for operators, at most 200 characters.

        Raises:
            ConfigurationError: The reason is not a text, or is too long.
            BusError: One of the errors of `status`.
        """

        async def cancel() -> JobStatus:
            return await self._handle.cancel(reason=reason)

        return self._run(cancel, None)

    def updates(self, *, after: int = 0) -> Iterator[Progress]:
        """Yield the progress updates of the job, until the job ends. Wait for each update.

        Args:
            after: Number of the last update that the caller knows. Only later ones are yielded.

        Raises:
            ConfigurationError: `after` is not a whole number from 0.
            ConnectionLost: The bus was closed before the job ended. The job continues.
            DeadlineExceeded: No valid update arrived within `message_ttl` seconds. If an update was
                rejected, the text has the reason.
            FailedPrecondition: A parent process submitted the job, or an event loop runs in this
                thread.
        """
        updates = self._handle.updates(after=after)

        async def next_update() -> Progress | None:
            return await anext(updates, None)

        while (update := self._run(next_update, None)) is not None:
            yield update

    def result(self, *, timeout: float | None = None) -> R:
        """Wait for the result of the job.

        Args:
            timeout: Seconds to wait. The default is the setting `message_ttl`, the time until a job
                expires.

        Returns:
            The result of the handler.

        Raises:
            BusError: The job failed with this error in its last attempt. The error code in the
                result selects the subclass.
            Cancelled: The job was cancelled. The text has the reason.
            ConfigurationError: `timeout` is not a finite number of seconds from 0.
            DeadlineExceeded: No valid result arrived in time. If an update was rejected, the text
                has the reason. Otherwise the job continues.
            ConnectionLost: The bus was closed before the job ended. The job continues.
            FailedPrecondition: A parent process submitted the job, or an event loop runs in this
                thread.
        """

        async def wait() -> R:
            return await self._handle.result(timeout=timeout)

        return self._run(wait, timeout)

    def _run(self, work: Callable[[], Coroutine[Any, Any, T]], timeout: float | None) -> T:
        refuse_event_loop(f"{self.type} (job {self.id})")
        loop = self._session.loop
        if loop.is_inherited:
            problem = "a parent process submitted the job. Read its result there, or submit a job."
            raise add_subject(FailedPrecondition(problem), self.type, self.id)
        if not loop.is_running:
            return self._run_after_close(work)
        return loop.run(work, limit_of(timeout, self._session.settings.message_ttl))

    def _run_after_close(self, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Return what has arrived before the bus was closed, without an event loop."""
        coroutine = work()
        try:
            coroutine.send(None)
        except StopIteration as stop:
            return cast("T", stop.value)
        except FailedPrecondition:
            # `JobHandle` is public, so that a new attribute of it would break implementations.
            if getattr(self._handle, "has_ended", False):
                raise  # the error of the job
            problem = "the bus was closed before the result arrived. The job continues."
            error = ConnectionLost(problem, maybe_executed=True)
            raise add_subject(error, self.type, self.id) from None
        finally:
            coroutine.close()
        raise AssertionError("a handle without an event loop cannot wait")
